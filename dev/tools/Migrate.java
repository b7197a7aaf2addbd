import org.flywaydb.core.Flyway;
import org.flywaydb.core.api.configuration.FluentConfiguration;
import org.flywaydb.database.postgresql.PostgreSQLConfigurationExtension;

/** Flyway without its command line: URL, user and folder. */
public class Migrate {
  public static void main(String[] arguments) {
    FluentConfiguration configuration =
        Flyway.configure().dataSource(arguments[0], arguments[1], "").locations("filesystem:" + arguments[2]);
    // Otherwise CREATE INDEX CONCURRENTLY waits for Flyway's own lock for ever.
    configuration.getConfigurationExtension(PostgreSQLConfigurationExtension.class).setTransactionalLock(false);
    configuration.baselineOnMigrate(true).baselineVersion("0").load().migrate();
  }
}
