// pgjdbc through the gateway, as its users use it. Run as one source file: `java -cp postgresql.jar JdbcClient.java`.
// Prints `plan N`, then `ok NAME` or `failed NAME: why` for the harness.

import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

public class JdbcClient {
    interface Case {
        void run(Connection connection) throws Exception;
    }

    static Connection connect(String... more) throws SQLException {
        Map<String, String> environment = System.getenv();
        Properties settings = new Properties();
        settings.setProperty("user", environment.get("PGUSER"));
        settings.setProperty("password", environment.get("PGPASSWORD"));
        settings.setProperty("sslmode", environment.get("PGSSLMODE"));
        settings.setProperty("prepareThreshold", "1"); // named statements, and binary results, from the first run on
        if (environment.containsKey("PGSSLROOTCERT")) {
            settings.setProperty("sslrootcert", environment.get("PGSSLROOTCERT"));
        }
        for (int index = 0; index < more.length; index += 2) {
            settings.setProperty(more[index], more[index + 1]);
        }
        String place = environment.get("PGHOST") + ":" + environment.get("PGPORT") + "/" + environment.get("PGDATABASE");
        return DriverManager.getConnection("jdbc:postgresql://" + place, settings);
    }

    static void same(Object found, Object wanted) {
        if (!wanted.equals(found)) {
            throw new AssertionError("found " + found + " instead of " + wanted);
        }
    }

    static String value(Connection connection, String sql) throws SQLException {
        try (var statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getString(1);
        }
    }

    static void run(Connection connection, String sql) throws SQLException {
        try (var statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    static String state(Case action, Connection connection) throws Exception {
        try {
            action.run(connection);
        } catch (SQLException error) {
            return error.getSQLState();
        }
        return "no error";
    }

    static void query(Connection connection) throws SQLException {
        same(value(connection, "SELECT 6 * 7"), "42");
        same(value(connection, "SELECT session_user"), "service");
        same(connection.getMetaData().getDatabaseMajorVersion(), 15);
        try (ResultSet tables = connection.getMetaData().getTables(null, "pg_catalog", "pg_class", null)) {
            same(tables.next(), true);
        }
    }

    static void preparedStatements(Connection connection) throws SQLException {
        try (var statement = connection.prepareStatement("SELECT ?::int + 1, ?::text, ?::bytea, ?::timestamptz")) {
            for (int number = 0; number < 20; number++) {
                statement.setInt(1, number);
                statement.setString(2, "späße " + number);
                statement.setBytes(3, new byte[] {0, (byte) 0xff, (byte) number});
                statement.setTimestamp(4, new java.sql.Timestamp(1_000_000L * number));
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next();
                    same(rows.getInt(1), number + 1);
                    same(rows.getString(2), "späße " + number);
                    same((int) rows.getBytes(3)[2], number);
                    same(rows.getTimestamp(4).getTime(), 1_000_000L * number);
                }
            }
        }
    }

    static void copy(Connection connection) throws Exception {
        run(connection, "CREATE TEMPORARY TABLE copied (id int, words text)");
        CopyManager manager = connection.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder rows = new StringBuilder();
        for (int number = 0; number < 50_000; number++) {
            rows.append(number).append("\tword ").append(number).append('\n');
        }
        same(manager.copyIn("COPY copied FROM STDIN", new StringReader(rows.toString())), 50_000L);
        StringWriter back = new StringWriter();
        same(manager.copyOut("COPY (SELECT * FROM copied ORDER BY id) TO STDOUT", back), 50_000L);
        same(back.toString().equals(rows.toString()), true);
        same(state(c -> manager.copyIn("COPY copied FROM STDIN", new StringReader("none\tx\n")), connection), "22P02");
        same(value(connection, "SELECT count(*) FROM copied"), "50000");
    }

    static void cancel(Connection connection) throws Exception {
        try (var statement = connection.createStatement()) {
            statement.setQueryTimeout(1); // pgjdbc sends a cancel request when it is over
            same(state(c -> statement.execute("SELECT pg_sleep(60)"), connection), "57014");
        }
        same(value(connection, "SELECT 'on'"), "on");
    }

    static void batch(Connection connection) throws SQLException {
        run(connection, "CREATE TEMPORARY TABLE batched (id int, words text)");
        try (var statement = connection.prepareStatement("INSERT INTO batched VALUES (?, ?)")) {
            for (int number = 0; number < 1_000; number++) {
                statement.setInt(1, number);
                statement.setString(2, "word " + number);
                statement.addBatch();
            }
            same(statement.executeBatch().length, 1_000);
        }
        same(value(connection, "SELECT count(*) || ' ' || sum(id) FROM batched"), "1000 499500");
    }

    static void rewrittenBatch(Connection plain) throws SQLException {
        try (Connection connection = connect("reWriteBatchedInserts", "true")) {
            batch(connection);
        }
    }

    static void failingBatch(Connection connection) throws Exception {
        run(connection, "CREATE TEMPORARY TABLE unique_batch (id int PRIMARY KEY)");
        connection.setAutoCommit(false);
        try (var statement = connection.prepareStatement("INSERT INTO unique_batch VALUES (?)")) {
            for (int number : new int[] {1, 2, 2, 3}) {
                statement.setInt(1, number);
                statement.addBatch();
            }
            same(state(c -> statement.executeBatch(), connection), "23505");
        }
        connection.rollback();
        connection.setAutoCommit(true);
        same(value(connection, "SELECT count(*) FROM unique_batch"), "0");
    }

    static void portions(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        try (var statement = connection.createStatement()) {
            statement.setFetchSize(50); // portals with a row limit
            long sum = 0;
            try (ResultSet rows = statement.executeQuery("SELECT generate_series(1, 1000)")) {
                while (rows.next()) {
                    sum += rows.getInt(1);
                }
            }
            same(sum, 500_500L);
        }
        connection.commit();
        connection.setAutoCommit(true);
    }

    static void errors(Connection connection) throws Exception {
        same(state(c -> value(c, "SELECT 1/0"), connection), "22012");
        same(value(connection, "SELECT 'on'"), "on");
        same(state(c -> connect("password", "no token").close(), connection), "28P01");
    }

    public static void main(String[] arguments) {
        Map<String, Case> cases = new LinkedHashMap<>();
        cases.put("query", JdbcClient::query);
        cases.put("prepared statements", JdbcClient::preparedStatements);
        cases.put("COPY in and out", JdbcClient::copy);
        cases.put("cancel by a timeout", JdbcClient::cancel);
        cases.put("batch", JdbcClient::batch);
        cases.put("batch rewritten to many rows", JdbcClient::rewrittenBatch);
        cases.put("batch that fails", JdbcClient::failingBatch);
        cases.put("rows in portions", JdbcClient::portions);
        cases.put("errors have their SQLSTATE", JdbcClient::errors);
        System.out.println("plan " + cases.size());
        cases.forEach((name, action) -> {
            try (Connection connection = connect()) {
                action.run(connection);
                System.out.println("ok " + name);
            } catch (Throwable why) {
                System.out.println("failed " + name + ": " + why.toString().replace('\n', ' '));
            }
        });
    }
}
