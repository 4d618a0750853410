// One-minute candles with Kafka Streams' DSL: a windowed aggregate in its default store (RocksDB with a changelog).
//
// Arguments: bootstrap, topic of ticks, topic of candles, application id, ticks to fold, folder of the store,
// commit interval in milliseconds ("default" keeps Kafka Streams' own).

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.WindowStore;

public final class KafkaStreamsCandles {
    private static final ObjectMapper JSON = new ObjectMapper();

    @JsonIgnoreProperties(ignoreUnknown = true)
    public record Frame(String symbol, double[][] ticks) {}

    public record Published(String symbol, long ts, double open, double high, double low, double close, long volume) {}

    public static final class Candle {
        public String symbol;
        public double open;
        public double high;
        public double low;
        public double close;
        public long volume;

        Candle add(String key, Frame frame) {
            symbol = frame.symbol();
            for (double[] tick : frame.ticks()) {
                double bid = tick[1];
                if (volume == 0) {
                    open = high = low = bid;
                }
                high = Math.max(high, bid);
                low = Math.min(low, bid);
                close = bid;
                volume++;
            }
            return this;
        }
    }

    private static <T> Serde<T> serde(Class<T> type) {
        return Serdes.serdeFrom(
            (topic, value) -> {
                try {
                    return value == null ? null : JSON.writeValueAsBytes(value);
                } catch (IOException e) {
                    throw new UncheckedIOException(e);
                }
            },
            (topic, bytes) -> {
                try {
                    return bytes == null ? null : JSON.readValue(bytes, type);
                } catch (IOException e) {
                    throw new UncheckedIOException(e);
                }
            });
    }

    public static void main(String[] args) throws InterruptedException {
        long toFold = Long.parseLong(args[4]);
        var folded = new CountDownLatch(1);
        var seen = new long[1]; // the one stream thread alone counts

        var properties = new Properties();
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, args[3]);
        properties.put(StreamsConfig.STATE_DIR_CONFIG, args[5]);
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        properties.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        if (!args[6].equals("default")) {
            properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, args[6]);
        }

        var builder = new StreamsBuilder();
        builder.stream(args[1], Consumed.with(Serdes.String(), serde(Frame.class)))
            .peek((key, frame) -> {
                if (seen[0] == 0) {
                    System.out.println("first");
                }
                seen[0] += frame.ticks().length;
                if (seen[0] == toFold) {
                    folded.countDown();
                }
            })
            .groupByKey(Grouped.with(Serdes.String(), serde(Frame.class)))
            .windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofMinutes(1), Duration.ofSeconds(5)))
            .aggregate(
                Candle::new,
                (key, frame, candle) -> candle.add(key, frame),
                Materialized.<String, Candle, WindowStore<Bytes, byte[]>>as("candles")
                    .withKeySerde(Serdes.String())
                    .withValueSerde(serde(Candle.class)))
            .toStream()
            .map((window, candle) -> KeyValue.pair(window.key(), new Published(
                candle.symbol, window.window().start(), candle.open, candle.high, candle.low, candle.close,
                candle.volume)))
            .to(args[2], Produced.with(Serdes.String(), serde(Published.class)));

        var streams = new KafkaStreams(builder.build(), properties);
        streams.start();
        folded.await();
        // Closing commits, which publishes what waits for the commit interval: that wait is no work and does not count.
        streams.close();
        // The peak of the memory is read from the living process.
        Thread.sleep(Duration.ofHours(1));
    }
}
