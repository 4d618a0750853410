// One-minute candles with Kafka Streams' DSL: a windowed aggregate in RocksDB with a changelog.
//
// Arguments: bootstrap, topic of ticks, topic of candles, application id, ticks to fold, folder of the store,
// commit interval in milliseconds ("default" leaves Kafka Streams' own), and how it is written:
//   documented    as its documentation begins: everything by default, JSON by Jackson's databind in the store
//   tuned         as an expert runs it on history: windows retained for two days instead of the size of one (which makes
//                 a RocksDB instance for each minute), a store of 40 bytes and the symbol a value, frames read by Jackson's
//                 streaming parser, a cache for all open windows, fetches of megabytes
//   in_memory     the same with windows in memory instead of RocksDB, with the same changelog
//   exactly_once  the same with exactly_once_v2

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
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
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;

public final class KafkaStreamsCandles {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Duration RETENTION = Duration.ofDays(2);

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

    /** A frame by Jackson's streaming parser: no reflection, no tree. */
    private static final class FrameReader {
        private static final JsonFactory FACTORY = new JsonFactory();
        private double[] row = new double[8];

        Frame read(byte[] bytes) {
            String symbol = null;
            var ticks = new ArrayList<double[]>();
            try (JsonParser json = FACTORY.createParser(bytes)) {
                json.nextToken();
                while (json.nextToken() == JsonToken.FIELD_NAME) {
                    String name = json.currentName();
                    JsonToken value = json.nextToken();
                    if (name.equals("symbol")) {
                        symbol = json.getText();
                    } else if (name.equals("ticks")) {
                        while (json.nextToken() == JsonToken.START_ARRAY) {
                            int count = 0;
                            for (JsonToken cell = json.nextToken(); cell != JsonToken.END_ARRAY; cell = json.nextToken()) {
                                if (count < row.length) {
                                    row[count++] = cell.isNumeric() ? json.getDoubleValue() : 0;
                                }
                            }
                            ticks.add(row.clone());
                        }
                    } else if (value.isStructStart()) {
                        json.skipChildren();
                    }
                }
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
            return new Frame(symbol, ticks.toArray(double[][]::new));
        }
    }

    /** Four prices, the volume, and the symbol. */
    private static Serde<Candle> binary() {
        return Serdes.serdeFrom(
            (topic, candle) -> {
                if (candle == null) {
                    return null;
                }
                byte[] symbol = candle.symbol.getBytes(StandardCharsets.UTF_8);
                return ByteBuffer.allocate(40 + symbol.length)
                    .putDouble(candle.open).putDouble(candle.high).putDouble(candle.low).putDouble(candle.close)
                    .putLong(candle.volume).put(symbol).array();
            },
            (topic, bytes) -> {
                if (bytes == null) {
                    return null;
                }
                var buffer = ByteBuffer.wrap(bytes);
                var candle = new Candle();
                candle.open = buffer.getDouble();
                candle.high = buffer.getDouble();
                candle.low = buffer.getDouble();
                candle.close = buffer.getDouble();
                candle.volume = buffer.getLong();
                candle.symbol = new String(bytes, 40, bytes.length - 40, StandardCharsets.UTF_8);
                return candle;
            });
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

        boolean isTuned = !args[7].equals("documented");
        if (isTuned) {
            properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 64 << 20);
            properties.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 50_000);
            properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 10_000);
            properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 16 << 20);
            properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.FETCH_MIN_BYTES_CONFIG), 1 << 20);
            properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG), 50);
            properties.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
            properties.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 50);
        }
        if (args[7].equals("exactly_once")) {
            properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        }
        var reader = new FrameReader();
        Serde<Frame> frames = isTuned
            ? Serdes.serdeFrom((topic, frame) -> null, (topic, bytes) -> reader.read(bytes))
            : serde(Frame.class);
        var store = (args[7].equals("in_memory")
            ? Materialized.<String, Candle>as(
                Stores.inMemoryWindowStore("candles", RETENTION, Duration.ofMinutes(1), false))
            : Materialized.<String, Candle, WindowStore<Bytes, byte[]>>as("candles"))
            .withKeySerde(Serdes.String())
            .withValueSerde(isTuned ? binary() : serde(Candle.class));
        if (isTuned) {
            store = store.withRetention(RETENTION);
        }

        var builder = new StreamsBuilder();
        builder.stream(args[1], Consumed.with(Serdes.String(), frames))
            .peek((key, frame) -> {
                if (seen[0] == 0) {
                    System.out.println("first");
                }
                seen[0] += frame.ticks().length;
                if (seen[0] == toFold) {
                    folded.countDown();
                }
            })
            .groupByKey(Grouped.with(Serdes.String(), frames))
            .windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofMinutes(1), Duration.ofSeconds(5)))
            .aggregate(
                Candle::new,
                (key, frame, candle) -> candle.add(key, frame),
                store)
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
