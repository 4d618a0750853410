// One-minute candles with Flink SQL: a tumbling window over event time, published when it closes.
//
// Arguments: bootstrap, topic of ticks, topic of candles, group, and how it is written:
//   documented  as its documentation begins: everything by default but the interval of checkpoints
//   tuned       as an expert runs it on history: objects are reused, fetches take megabytes
//
// Event time is the record's timestamp, that of its one tick. It says `first` when its job runs, a moment before it reads.

import java.time.Duration;
import org.apache.flink.api.common.JobStatus;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;

public final class FlinkCandles {
    public static void main(String[] args) throws Exception {
        boolean isTuned = args[4].equals("tuned");
        var settings = new Configuration();
        settings.setString("parallelism.default", "1");
        settings.setString("execution.checkpointing.interval", "200ms");
        settings.setString("table.local-time-zone", "UTC");
        if (isTuned) {
            settings.setString("pipeline.object-reuse", "true");
        }
        var environment = StreamExecutionEnvironment.getExecutionEnvironment(settings);
        var tables = StreamTableEnvironment.create(environment);
        String fetches = isTuned
            ? ", 'properties.max.partition.fetch.bytes' = '16777216', 'properties.max.poll.records' = '10000'"
            + ", 'properties.fetch.min.bytes' = '1048576', 'properties.fetch.max.wait.ms' = '50'"
            : "";
        tables.executeSql("CREATE TABLE frames (symbol STRING, ticks ARRAY<ARRAY<DOUBLE>>,"
            + " event_time TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,"
            + " WATERMARK FOR event_time AS event_time - INTERVAL '5' SECOND)"
            + " WITH ('connector' = 'kafka', 'topic' = '" + args[1] + "', 'properties.bootstrap.servers' = '" + args[0]
            + "', 'properties.group.id' = '" + args[3] + "', 'scan.startup.mode' = 'earliest-offset',"
            + " 'format' = 'json'" + fetches + ")");
        tables.executeSql("CREATE TABLE candles (symbol STRING, ts BIGINT, `open` DOUBLE, high DOUBLE, low DOUBLE,"
            + " `close` DOUBLE, volume BIGINT) WITH ('connector' = 'kafka', 'topic' = '" + args[2]
            + "', 'properties.bootstrap.servers' = '" + args[0] + "', 'format' = 'json')");
        var result = tables.executeSql("INSERT INTO candles SELECT symbol,"
            + " UNIX_TIMESTAMP(CAST(window_start AS STRING)) * 1000,"
            + " FIRST_VALUE(bid), MAX(bid), MIN(bid), LAST_VALUE(bid), COUNT(*)"
            + " FROM (SELECT symbol, ticks[1][2] AS bid, window_start, window_end FROM"
            + " TABLE(TUMBLE(TABLE frames, DESCRIPTOR(event_time), INTERVAL '1' MINUTE)))"
            + " GROUP BY symbol, window_start, window_end");
        var job = result.getJobClient().orElseThrow();
        while (job.getJobStatus().get() != JobStatus.RUNNING) {
            Thread.sleep(5);
        }
        System.out.println("first");
        Thread.sleep(Duration.ofHours(1));
    }
}
