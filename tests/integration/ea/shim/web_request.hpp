// WebRequest over a real socket, one connection a request.

#pragma once

#include <arpa/inet.h>
#include <chrono>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "mql5_shim.hpp"

const int ERR_WEBREQUEST_CONNECT_FAILED = 5201, ERR_WEBREQUEST_TIMEOUT = 5202, ERR_WEBREQUEST_REQUEST_FAILED = 5203;

// Requests that are ended by the death of the process before their answer is read; negative is never.
inline int requests_until_death = -1;

inline long steady_ms() {
    using namespace std::chrono;
    return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

inline bool wait_for(int socket, short events, long deadline_ms) {
    pollfd waiting{socket, events, 0};
    return poll(&waiting, 1, (int)std::max(0L, deadline_ms - steady_ms())) > 0;
}

// The whole answer, or an error.
inline int exchange(const std::string &host, int port, const std::string &request, long deadline_ms, std::string &answer) {
    int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)port);
    inet_pton(AF_INET, host.c_str(), &address.sin_addr);
    int error = 0;
    if(connect(fd, (sockaddr *)&address, sizeof address) != 0)
        error = ERR_WEBREQUEST_CONNECT_FAILED;
    for(size_t sent = 0; !error && sent < request.size();) {
        ssize_t n = wait_for(fd, POLLOUT, deadline_ms) ? send(fd, request.data() + sent, request.size() - sent, MSG_NOSIGNAL) : 0;
        if(n <= 0)
            break; // the answer tells why nothing more is taken
        sent += (size_t)n;
    }
    if(requests_until_death == 0) {
        wait_for(fd, POLLIN, deadline_ms);
        _exit(9);
    }
    if(requests_until_death > 0)
        requests_until_death--;
    char buffer[65536];
    while(!error) {
        if(!wait_for(fd, POLLIN, deadline_ms)) {
            error = ERR_WEBREQUEST_TIMEOUT;
            break;
        }
        ssize_t n = recv(fd, buffer, sizeof buffer, 0);
        if(n <= 0)
            break;
        answer.append(buffer, (size_t)n);
    }
    close(fd);
    if(!error && answer.find("\r\n\r\n") == std::string::npos)
        error = ERR_WEBREQUEST_REQUEST_FAILED;
    return error;
}

// An answer that takes less is a healthy server's, on a machine that may be busy: it counts as a quick one.
const long SLOW_ANSWER_MS = 1000, QUICK_ANSWER_MS = 1;

inline int WebRequest(const string &method, const string &url, const string &headers, int timeout, const Array<char> &data,
                      Array<char> &result, string &result_headers) {
    note_call(0, true);
    bool allowed = false;
    for(const std::string &beginning : terminal.allowed)
        allowed = allowed || url.text.rfind(beginning, 0) == 0;
    if(!allowed) {
        terminal.last_error = 4014;
        return -1;
    }
    std::string rest = url.text.substr(7); // behind http://
    std::string host = rest.substr(0, rest.find(':'));
    int port = std::atoi(rest.substr(rest.find(':') + 1).c_str());
    std::string request = method.text + " " + rest.substr(rest.find('/')) + " HTTP/1.1\r\nHost: " + host +
                          "\r\nConnection: close\r\nContent-Length: " + std::to_string(ArraySize(data)) + "\r\n" +
                          headers.text + "\r\n" + std::string(data.items.begin(), data.items.end());
    long began = steady_ms();
    std::string answer;
    int error = exchange(host, port, request, began + timeout, answer);
    long took = steady_ms() - began;
    terminal.now_ms += terminal.answer_ms >= 0 ? terminal.answer_ms : took < SLOW_ANSWER_MS ? QUICK_ANSWER_MS : took;
    if(error) {
        terminal.last_error = error;
        return -1;
    }
    size_t end = answer.find("\r\n\r\n");
    result_headers = string(answer.substr(0, end + 2));
    result.items.assign(answer.begin() + (long)end + 4, answer.end());
    return std::atoi(answer.c_str() + 9); // HTTP/1.1 200
}
