// What the inputs say, in one place that every part reads.

#ifndef TICKPIPE_SETTINGS_MQH
#define TICKPIPE_SETTINGS_MQH

#define COLLECTOR_VERSION "2.00"

// Where the offset of the broker's clock from UTC comes from. The comments are what the dialog shows.
enum ClockOffset {
    CLOCK_AUTO = 0,   // Trade server time minus UTC of this PC / Hora do servidor menos UTC deste PC
    CLOCK_SERVER = 1, // Tickpipe knows the zone of this source / O Tickpipe conhece o fuso desta fonte
    CLOCK_FIXED = 2   // The minutes given below / Os minutos abaixo
};

struct CollectorSettings {
    string relay_url;
    string server_url;
    string api_key;
    // Name of the feed, sent as X-Source; "auto" is the broker's server, empty leaves it to the key.
    string source;
    // Comma-separated; empty is every visible symbol of the Market Watch that the broker quotes.
    string symbols;
    bool send_bars;
    bool fill_gaps;
    int timeout_ms;
    int max_ticks;
    int ring_megabytes;
    int catch_up_hours;
    int first_hours;
    ClockOffset clock;
    int fixed_offset_s;
};

#endif
