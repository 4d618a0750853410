// SHA-256 (FIPS 180-4), which MQL5 has built in.

#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "mql5_shim.hpp"

enum { CRYPT_HASH_SHA256 = 4 };

// The first 32 bits of the fraction of a root of a prime.
inline uint32_t root_bits(long double root) { return (uint32_t)std::floor((root - std::floor(root)) * 4294967296.0L); }

inline std::array<uint32_t, 64> primes() {
    std::array<uint32_t, 64> found{};
    uint32_t candidate = 2;
    for(uint32_t &prime : found) {
        for(uint32_t divisor = 2; divisor * divisor <= candidate; divisor++)
            if(candidate % divisor == 0) {
                candidate++;
                divisor = 1;
            }
        prime = candidate++;
    }
    return found;
}

// Of square roots the first eight begin, of cube roots all are used in turn; computed once, for a waiting EA asks every turn.
struct Constants {
    std::array<uint32_t, 8> begin{};
    std::array<uint32_t, 64> turns{};

    Constants() {
        std::array<uint32_t, 64> numbers = primes();
        for(size_t i = 0; i < begin.size(); i++)
            begin[i] = root_bits(std::sqrt((long double)numbers[i]));
        for(size_t i = 0; i < turns.size(); i++)
            turns[i] = root_bits(std::cbrt((long double)numbers[i]));
    }
};

inline const Constants constants;

inline uint32_t rotated(uint32_t x, int n) { return x >> n | x << (32 - n); }

inline void compress(std::array<uint32_t, 8> &state, const uchar *block) {
    std::array<uint32_t, 64> w{};
    for(size_t t = 0; t < 16; t++)
        w[t] = (uint32_t)block[4 * t] << 24 | block[4 * t + 1] << 16 | block[4 * t + 2] << 8 | block[4 * t + 3];
    for(size_t t = 16; t < 64; t++)
        w[t] = w[t - 16] + w[t - 7] + (rotated(w[t - 15], 7) ^ rotated(w[t - 15], 18) ^ w[t - 15] >> 3) +
               (rotated(w[t - 2], 17) ^ rotated(w[t - 2], 19) ^ w[t - 2] >> 10);
    std::array<uint32_t, 8> v = state;
    for(size_t t = 0; t < 64; t++) {
        uint32_t one = v[7] + (rotated(v[4], 6) ^ rotated(v[4], 11) ^ rotated(v[4], 25)) +
                       ((v[4] & v[5]) ^ (~v[4] & v[6])) + constants.turns[t] + w[t];
        uint32_t two = (rotated(v[0], 2) ^ rotated(v[0], 13) ^ rotated(v[0], 22)) +
                       ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        v = {one + two, v[0], v[1], v[2], v[3] + one, v[4], v[5], v[6]};
    }
    for(size_t i = 0; i < 8; i++)
        state[i] += v[i];
}

inline int CryptEncode(int, const Array<uchar> &data, const Array<uchar> &, Array<uchar> &result) {
    std::array<uint32_t, 8> state = constants.begin;
    std::vector<uchar> padded(data.items.begin(), data.items.end());
    padded.push_back(0x80);
    while(padded.size() % 64 != 56)
        padded.push_back(0);
    for(int shift = 56; shift >= 0; shift -= 8)
        padded.push_back((uchar)((uint64_t)data.items.size() * 8 >> shift));
    for(size_t at = 0; at < padded.size(); at += 64)
        compress(state, padded.data() + at);
    result.items.clear();
    for(uint32_t word : state)
        for(int shift = 24; shift >= 0; shift -= 8)
            result.items.push_back((uchar)(word >> shift));
    return ArraySize(result);
}
