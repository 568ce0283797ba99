//! Journals of migration tools: each says what was done to one database, and stays there.

use crate::world::parts::text;
use crate::world::{Agent, Hub, pair, settle};
use federation_hub::model::Value;
use federation_hub::storage::choice::{CreateSchema, SyncOptions};
use federation_hub::storage::migrate;

/// Journals as their tools make them, each with a row of one that has migrated.
const JOURNALS: &[(&str, &str, &str)] = &[
    (
        "kysely_migration",
        "create table \"kysely_migration\" (\"name\" varchar(255) not null primary key, \"timestamp\" varchar(255) not null)",
        "'one', '2026'",
    ),
    (
        "kysely_migration_lock",
        "create table \"kysely_migration_lock\" (\"id\" varchar(255) not null primary key, \"is_locked\" integer default 0 not null)",
        "'migration_lock', 1",
    ),
    (
        "knex_migrations",
        "create table `knex_migrations` (`id` integer not null primary key autoincrement, `name` varchar(255), \
         `batch` integer, `migration_time` datetime)",
        "1, 'one', 1, 2026",
    ),
    (
        "knex_migrations_lock",
        "create table `knex_migrations_lock` (`index` integer not null primary key autoincrement, `is_locked` integer)",
        "1, 1",
    ),
    (
        "migrations",
        "CREATE TABLE \"migrations\" (\"id\" integer PRIMARY KEY AUTOINCREMENT NOT NULL, \"timestamp\" bigint NOT NULL, \
         \"name\" varchar NOT NULL)",
        "1, 2026, 'one'",
    ),
    (
        "typeorm_metadata",
        "CREATE TABLE \"typeorm_metadata\" (\"type\" varchar NOT NULL, \"database\" varchar, \"schema\" varchar, \
         \"table\" varchar, \"name\" varchar, \"value\" text)",
        "'VIEW', NULL, NULL, NULL, 'v', 'SELECT 1'",
    ),
    (
        "__drizzle_migrations",
        "CREATE TABLE \"__drizzle_migrations\" (id SERIAL PRIMARY KEY, hash text NOT NULL, created_at numeric)",
        "1, 'hash', 2026",
    ),
    (
        "_prisma_migrations",
        "CREATE TABLE \"_prisma_migrations\" (\"id\" TEXT PRIMARY KEY NOT NULL, \"checksum\" TEXT NOT NULL, \
         \"finished_at\" DATETIME, \"migration_name\" TEXT NOT NULL, \"logs\" TEXT, \"rolled_back_at\" DATETIME, \
         \"started_at\" DATETIME NOT NULL DEFAULT current_timestamp, \
         \"applied_steps_count\" INTEGER UNSIGNED NOT NULL DEFAULT 0)",
        "'one', 'sum', 2026, 'one', NULL, NULL, 2026, 1",
    ),
    (
        "SequelizeMeta",
        "CREATE TABLE `SequelizeMeta` (`name` VARCHAR(255) NOT NULL UNIQUE PRIMARY KEY)",
        "'one.js'",
    ),
    (
        "mikro_orm_migrations",
        "create table `mikro_orm_migrations` (`id` integer not null primary key autoincrement, `name` text null, \
         `executed_at` datetime null default current_timestamp)",
        "1, 'one', 2026",
    ),
    (
        "schema_migrations",
        "CREATE TABLE \"schema_migrations\" (\"version\" varchar NOT NULL PRIMARY KEY)",
        "'2026'",
    ),
    (
        "ar_internal_metadata",
        "CREATE TABLE \"ar_internal_metadata\" (\"key\" varchar NOT NULL PRIMARY KEY, \"value\" varchar, \
         \"created_at\" datetime(6) NOT NULL, \"updated_at\" datetime(6) NOT NULL)",
        "'environment', 'production', 2026, 2026",
    ),
    (
        "django_migrations",
        "CREATE TABLE \"django_migrations\" (\"id\" integer NOT NULL PRIMARY KEY AUTOINCREMENT, \
         \"app\" varchar(255) NOT NULL, \"name\" varchar(255) NOT NULL, \"applied\" datetime NOT NULL)",
        "1, 'app', 'one', 2026",
    ),
    (
        "alembic_version",
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, \
         CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))",
        "'ae10'",
    ),
    (
        "_sqlx_migrations",
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
         installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL, \
         execution_time BIGINT NOT NULL)",
        "1, 'one', 2026, 1, x'00', 1",
    ),
    (
        "refinery_schema_history",
        "CREATE TABLE refinery_schema_history(version INT4 PRIMARY KEY, name VARCHAR(255), applied_on VARCHAR(255), \
         checksum VARCHAR(255))",
        "1, 'one', 2026, 'sum'",
    ),
    (
        "__diesel_schema_migrations",
        "CREATE TABLE __diesel_schema_migrations (version VARCHAR(50) PRIMARY KEY NOT NULL, \
         run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)",
        "'one', 2026",
    ),
    (
        "flyway_schema_history",
        "CREATE TABLE \"flyway_schema_history\" (\"installed_rank\" INT NOT NULL PRIMARY KEY, \"version\" VARCHAR(50), \
         \"description\" VARCHAR(200) NOT NULL, \"type\" VARCHAR(20) NOT NULL, \"script\" VARCHAR(1000) NOT NULL, \
         \"checksum\" INT, \"installed_by\" VARCHAR(100) NOT NULL, \"installed_on\" TEXT NOT NULL, \
         \"execution_time\" INT NOT NULL, \"success\" BOOLEAN NOT NULL)",
        "1, '1', 'one', 'SQL', 'one.sql', 1, 'me', 2026, 1, 1",
    ),
    (
        "goose_db_version",
        "CREATE TABLE goose_db_version (id INTEGER PRIMARY KEY AUTOINCREMENT, version_id INTEGER NOT NULL, \
         is_applied INTEGER NOT NULL, tstamp TIMESTAMP DEFAULT (datetime('now')))",
        "1, 1, 1, 2026",
    ),
    (
        "__EFMigrationsHistory",
        "CREATE TABLE \"__EFMigrationsHistory\" (\"MigrationId\" TEXT NOT NULL CONSTRAINT \"PK___EFMigrationsHistory\" \
         PRIMARY KEY, \"ProductVersion\" TEXT NOT NULL)",
        "'one', '10'",
    ),
    (
        "_llm_migrations",
        "CREATE TABLE [_llm_migrations] ([name] TEXT PRIMARY KEY, [applied_at] TEXT)",
        "'one', 2026",
    ),
    (
        "migrations",
        "CREATE TABLE migrations (dir TEXT NOT NULL, version INTEGER NOT NULL, filename TEXT NOT NULL, \
         sql TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (dir, version))",
        "'db', 1, 'one', 'CREATE', 'hash'",
    ),
];

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)";

fn including(patterns: &[&str]) -> SyncOptions {
    SyncOptions {
        include: Some(patterns.iter().map(|&it| it.to_owned()).collect()),
        ..SyncOptions::default()
    }
}

/// Syncs with other options from now on, as after a restart.
fn choose(agent: &mut Agent, options: SyncOptions) -> &mut Agent {
    agent.options = options;
    agent.reconnect();
    agent
}

fn count(agent: &mut Agent, table: &str) -> i64 {
    match agent.rows(&format!("SELECT count(*) FROM \"{table}\"")).swap_remove(0)[..] {
        [Value::Integer(count)] => count,
        _ => panic!("no count"),
    }
}

fn has(agent: &mut Agent, table: &str) -> bool {
    !agent.rows(&format!("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '{table}'")).is_empty()
}

fn triggers_on(agent: &mut Agent, table: &str) -> usize {
    agent.rows(&format!("SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND tbl_name = '{table}'")).len()
}

/// Breaks if an agent that has not migrated is told that it has.
#[test]
fn a_journal_stays_with_the_database_that_it_is_about_and_that_is_told_once() {
    for (name, definition, row) in JOURNALS {
        let (mut hub, mut a, mut b) = pair(NOTES);
        a.run(definition).run(&format!("INSERT INTO \"{name}\" VALUES({row})"));
        a.run("INSERT INTO notes VALUES('a', 'of a')");
        b.run(definition);
        assert_eq!(settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes").len(), 1);
        assert_eq!((count(&mut a, name), count(&mut b, name)), (1, 0), "{definition}");
        assert_eq!(triggers_on(&mut a, name), 0, "{definition}");
        let mut c = Agent::new("acme", "c", 3);
        c.options.create_schema = CreateSchema::Always;
        c.sync(&mut hub);
        assert!(!has(&mut c, name) && count(&mut c, "notes") == 1, "{definition}");
        // With a connection for each sync, as by a path.
        for _ in 0..2 {
            a.reconnect();
            a.sync(&mut hub);
        }
        assert_eq!(a.notices.len(), 1, "{:?}", a.notices);
        assert!(a.notices[0].contains(name) && a.notices[0].contains("tables.include"), "{:?}", a.notices);
    }
}

/// Breaks if two agents at different versions get each other's: Alembic upgrades no database that has two.
#[test]
fn agents_of_different_versions_keep_their_own() {
    let version = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)";
    let (mut hub, mut a, mut b) = pair(&format!("{NOTES}; {version}"));
    a.run("INSERT INTO alembic_version VALUES('two')");
    b.run("INSERT INTO alembic_version VALUES('one')");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes");
    assert_eq!(a.rows("SELECT * FROM alembic_version"), [[text("two")]]);
    assert_eq!(b.rows("SELECT * FROM alembic_version"), [[text("one")]]);
}

#[test]
fn a_journal_that_is_named_is_shared_and_everything_names_nothing() {
    for (patterns, is_shared) in [
        (&["*"][..], false),
        (&["*", "KNEX_migrations"], true),
        (&["notes", "knex_*"], true),
        (&["notes"], false),
    ] {
        let (mut hub, mut a, mut b) = (Hub::new(), Agent::new("acme", "a", 1), Agent::new("acme", "b", 2));
        let (name, definition, row) = JOURNALS[2];
        a.run(NOTES).run(definition).run(&format!("INSERT INTO {name} VALUES({row})"));
        for agent in [&mut a, &mut b] {
            choose(agent, including(patterns)).sync(&mut hub);
        }
        assert_eq!(has(&mut b, name), is_shared, "{patterns:?}");
        if is_shared {
            assert_eq!(count(&mut b, name), 1, "{patterns:?}");
            assert_eq!(a.notices, Vec::<String>::new());
        }
    }
}

/// A tenant at whose hub there are journals: an agent of an earlier release shared them as if they had been named.
fn of_an_earlier_release((name, definition, row): (&'static str, &str, &str)) -> (Hub, Agent, &'static str) {
    let (mut hub, mut a) = (Hub::new(), Agent::new("acme", "a", 1));
    choose(&mut a, including(&["*", name]));
    a.run(NOTES).run("INSERT INTO notes VALUES('a', 'of a')");
    a.run(definition).run(&format!("INSERT INTO \"{name}\" VALUES({row})"));
    a.sync(&mut hub);
    (hub, a, name)
}

#[test]
fn a_journal_that_a_tenant_has_is_not_made_and_its_rows_are_passed_over() {
    for &(name, definition, row) in JOURNALS {
        let (mut hub, mut a, _) = of_an_earlier_release((name, definition, row));
        let (mut b, mut c) = (Agent::new("acme", "b", 2), Agent::new("acme", "c", 3));
        b.run(definition);
        for agent in [&mut b, &mut c] {
            assert_eq!(agent.sync(&mut hub).quarantined, 0, "{name}");
            assert_eq!(count(agent, "notes"), 1);
        }
        a.run(&format!("DELETE FROM \"{name}\"")).sync(&mut hub);
        for agent in [&mut b, &mut c] {
            agent.reconnect();
            assert_eq!(agent.sync(&mut hub).quarantined, 0, "{name}");
        }
        assert!(!has(&mut c, name), "{definition}");
        // Its own migrator makes it, and finds it as it left it.
        c.run(definition);
        a.run(&format!("INSERT INTO \"{name}\" VALUES({row})")).sync(&mut hub);
        c.sync(&mut hub);
        assert_eq!((count(&mut b, name), count(&mut c, name)), (0, 0), "{definition}");
    }
}

#[test]
fn one_that_was_shared_comes_home_and_is_exchanged_again_if_it_is_named() {
    let (mut hub, mut a, name) = of_an_earlier_release(JOURNALS[2]);
    let mut b = Agent::new("acme", "b", 2);
    choose(&mut b, including(&["*", name])).sync(&mut hub);
    assert_eq!((count(&mut b, name), triggers_on(&mut b, name) > 0), (1, true));
    choose(&mut b, SyncOptions::default()).sync(&mut hub);
    assert_eq!((count(&mut b, name), triggers_on(&mut b, name)), (1, 0));
    assert_eq!(b.notices.len(), 1, "{:?}", b.notices);
    let other = |id: i64| format!("INSERT INTO {name} VALUES({id}, 'another', 2, 2027)");
    b.run(&other(2)).sync(&mut hub);
    a.run(&other(3)).run(&other(4)).sync(&mut hub);
    b.sync(&mut hub);
    assert_eq!((count(&mut a, name), count(&mut b, name)), (3, 2));
    choose(&mut b, including(&["knex_*", "notes"]));
    assert_eq!(settle(&mut hub, &mut a, &mut b, &format!("SELECT name FROM {name} ORDER BY name")).len(), 4);
}

/// Breaks if a migration ends with other tables shared than it began with.
#[test]
fn what_is_named_stays_shared_through_a_migration_and_a_new_journal_stays_at_home() {
    let (mut hub, mut a, name) = of_an_earlier_release(JOURNALS[2]);
    let claim = a.claim();
    migrate::begin(&mut a.sql, claim).unwrap();
    a.run(JOURNALS[0].1).run("INSERT INTO kysely_migration VALUES('one', 1)");
    migrate::end(&mut a.sql).unwrap();
    assert!(triggers_on(&mut a, name) > 0 && triggers_on(&mut a, "kysely_migration") == 0);
    a.sync(&mut hub);
    let told: Vec<&String> = a.notices.iter().filter(|notice| notice.contains(name)).collect();
    assert_eq!(told, Vec::<&String>::new());
    let mut b = Agent::new("acme", "b", 2);
    let options = SyncOptions { create_schema: CreateSchema::Always, ..including(&["*", name]) };
    choose(&mut b, options).sync(&mut hub);
    assert_eq!((count(&mut b, name), has(&mut b, "kysely_migration")), (1, false));
}

#[test]
fn what_only_looks_like_a_journal_is_shared_with_a_notice_and_that_once() {
    for (name, definition) in [
        ("our_migrations", "CREATE TABLE our_migrations(id TEXT PRIMARY KEY, done)"),
        ("schema_version", "CREATE TABLE schema_version(version INTEGER NOT NULL, at TEXT)"),
        ("meta", "CREATE TABLE meta(key TEXT PRIMARY KEY, value)"),
        ("bird_migration", "CREATE TABLE bird_migration(id TEXT PRIMARY KEY, timestamp)"),
    ] {
        let (mut hub, mut a, mut b) = pair(definition);
        a.run(&format!("INSERT INTO {name} VALUES('x', 1)")).sync(&mut hub);
        b.sync(&mut hub);
        assert_eq!(count(&mut b, name), 1, "{name}");
        a.reconnect();
        a.sync(&mut hub);
        let told: Vec<&String> =
            a.notices.iter().filter(|notice| notice.contains("tables.exclude")).collect();
        assert!(told.len() == 1 && told[0].contains(name), "{:?}", a.notices);
        assert_eq!(a.notices.len(), 1, "{:?}", a.notices);
    }
    let (mut hub, mut a, _) = pair("CREATE TABLE our_migrations(id TEXT PRIMARY KEY, done)");
    choose(&mut a, including(&["our_*"])).sync(&mut hub);
    assert_eq!(a.notices, Vec::<String>::new(), "whoever names it knows");
}

/// Breaks if the notice of columns that look like references gets lost, or comes again, beside that of a journal.
#[test]
fn one_notice_of_a_table_does_not_bring_another_again() {
    let (mut hub, mut a, _) = pair("CREATE TABLE our_migrations(id TEXT PRIMARY KEY, note_id INTEGER)");
    a.sync(&mut hub);
    assert_eq!(a.notices.len(), 2, "{:?}", a.notices);
    a.run("ALTER TABLE our_migrations ADD COLUMN other_id INTEGER").sync(&mut hub);
    assert_eq!(a.notices.len(), 3, "{:?}", a.notices);
    assert!(a.notices[2].contains("other_id"), "{:?}", a.notices);
}
