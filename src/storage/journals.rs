//! The journals of migration tools: what has been done to *this* database. Shared, an agent that has not migrated
//! believes that it has, and a lock that one agent took locks out all. So they stay at home unless the application names
//! them. (What such tools keep besides is data: Django's `django_content_type` is referenced by rows that are shared, and
//! its UNIQUE key makes one row of what several agents have made.)

use super::choice::is_match;
use crate::model::{KeyKind, TableSchema};

/// A tool, a pattern of names of its journal, and the columns that this has, or none where the name is enough.
type Journal = (&'static str, &'static str, &'static [&'static str]);

/// What is known of tools that people use, from their sources. Where an application may choose a name, columns that no
/// other table has tell it.
const KNOWN: &[Journal] = &[
    ("kysely", "kysely_migration", &[]),
    ("kysely", "kysely_migration_lock", &[]),
    ("knex", "knex_migrations", &[]),
    ("knex", "knex_migrations_lock", &[]),
    ("knex", "*", &["id", "name", "batch", "migration_time"]),
    ("knex", "*_lock", &["index", "is_locked"]),
    ("TypeORM", "*migrations*", &["id", "timestamp", "name"]),
    ("TypeORM", "typeorm_metadata", &[]),
    ("drizzle", "__drizzle_migrations", &[]),
    ("Prisma", "_prisma_migrations", &[]),
    ("Sequelize", "SequelizeMeta", &[]),
    ("Sequelize", "SequelizeData", &["name"]),
    ("MikroORM", "mikro_orm_migrations", &[]),
    ("db-migrate", "migrations", &["id", "name", "run_on"]),
    ("Payload", "payload_migrations", &[]),
    ("Strapi", "strapi_migrations", &[]),
    ("Strapi", "strapi_migrations_internal", &[]),
    ("Directus", "directus_migrations", &[]),
    // golang-migrate, dbmate and Ecto call theirs so as well.
    ("Rails", "schema_migrations", &[]),
    ("Rails", "ar_internal_metadata", &[]),
    ("Laravel", "migrations", &["id", "migration", "batch"]),
    ("Phinx", "phinxlog", &[]),
    ("Doctrine", "doctrine_migration_versions", &[]),
    ("Django", "django_migrations", &[]),
    ("Alembic", "alembic_version", &[]),
    ("Alembic", "*", &["version_num"]),
    ("Aerich", "aerich", &["id", "version", "app", "content"]),
    ("peewee_migrate", "migratehistory", &[]),
    ("yoyo", "_yoyo_migration", &[]),
    ("yoyo", "_yoyo_log", &[]),
    ("yoyo", "_yoyo_version", &[]),
    ("yoyo", "yoyo_lock", &[]),
    ("sqlite-migrate", "_sqlite_migrations", &[]),
    ("llm", "_llm_migrations", &[]),
    ("Chroma", "migrations", &["dir", "version", "filename", "sql", "hash"]),
    ("SQLx", "_sqlx_migrations", &[]),
    ("SQLx", "*", &["version", "description", "installed_on", "success", "checksum", "execution_time"]),
    ("SeaORM", "seaql_migrations", &[]),
    ("Refinery", "refinery_schema_history", &[]),
    ("Refinery", "*", &["version", "name", "applied_on", "checksum"]),
    ("Diesel", "__diesel_schema_migrations", &[]),
    ("Flyway", "flyway_schema_history", &[]),
    (
        "Flyway",
        "*",
        &[
            "installed_rank",
            "version",
            "description",
            "type",
            "script",
            "checksum",
            "installed_by",
            "installed_on",
            "execution_time",
            "success",
        ],
    ),
    ("Liquibase", "DATABASECHANGELOG", &[]),
    ("Liquibase", "DATABASECHANGELOGLOCK", &[]),
    ("goose", "goose_db_version", &[]),
    ("goose", "*", &["id", "version_id", "is_applied", "tstamp"]),
    ("Bun", "bun_migrations", &[]),
    ("Bun", "bun_migration_locks", &[]),
    ("Atlas", "atlas_schema_revisions", &[]),
    ("Entity Framework", "__EFMigrationsHistory", &[]),
    ("Entity Framework", "__EFMigrationsLock", &[]),
    ("Entity Framework", "*", &["MigrationId", "ProductVersion"]),
    ("Room", "room_master_table", &[]),
];

/// Names that journals of an application's own often have.
const LIKELY_NAMES: [&str; 10] = [
    "*migration*",
    "*schema*version*",
    "*schema*history*",
    "*schema_info*",
    "*schema_meta*",
    "*schema_change*",
    "db_version*",
    "database_version*",
    "*dbversion*",
    "db_info",
];
/// Names of tables in which an application may keep, among other things, which version its schema has.
const META_NAMES: [&str; 4] = ["meta", "*_meta", "metadata", "*_metadata"];
/// The columns of one that holds pairs.
const PAIRS: [[&str; 2]; 4] = [["key", "value"], ["name", "value"], ["k", "v"], ["key", "val"]];
/// Columns that tell what was done, and when.
const WHAT: [&str; 4] = ["version", "checksum", "migration", "schema_version"];
const WHEN: [&str; 7] =
    ["applied_at", "applied_on", "installed_on", "executed_at", "migrated_at", "run_on", "migration_time"];

/// Columns that name what was done.
const MIGRATION: [&str; 4] = ["name", "filename", "file", "hash"];

/// The tool whose journal a table of this name and these columns is.
pub fn tool(name: &str, columns: &[&str]) -> Option<&'static str> {
    let has_exactly =
        |wanted: &[&str]| columns.len() == wanted.len() && columns.iter().all(|own| is_any(own, wanted));
    let is = |(_, pattern, wanted): &&Journal| {
        is_match(pattern, name) && (wanted.is_empty() || has_exactly(wanted))
    };
    KNOWN.iter().find(is).map(|(tool, ..)| *tool)
}

/// The tool whose journal a table of the tenant's is. Of a numbered table the definition does not name the number.
pub fn tool_of(table: &TableSchema) -> Option<&'static str> {
    let own: Vec<&str> = table.columns.iter().map(String::as_str).collect();
    let of_its_number = [None, Some("id"), Some("index"), Some("installed_rank"), Some("version")];
    let number = if table.key == KeyKind::Number { &of_its_number[..] } else { &[None] };
    number.iter().find_map(|number| {
        let columns: Vec<&str> = number.iter().chain(&own).copied().collect();
        tool(&table.name, &columns)
    })
}

/// Whether a name is one of these, as SQLite compares names.
fn is_any(name: &str, wanted: &[&str]) -> bool {
    wanted.iter().any(|it| it.eq_ignore_ascii_case(name))
}

/// Whether a table's name is like one of these.
fn is_like_any(name: &str, patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| is_match(pattern, name))
}

/// Whether one of a table's columns is one of these.
fn has_one_of(columns: &[&str], wanted: &[&str]) -> bool {
    columns.iter().any(|own| is_any(own, wanted))
}

/// Whether a table's columns say what was done, and when.
fn tells_history(columns: &[&str]) -> bool {
    has_one_of(columns, &WHAT) && has_one_of(columns, &WHEN)
}

/// The names of the two columns of a table that holds pairs.
fn pair(columns: &[&str]) -> Option<&'static [&'static str; 2]> {
    let is_it = |pair: &&[&str; 2]| columns.len() == 2 && columns.iter().all(|own| is_any(own, &pair[..]));
    PAIRS.iter().find(is_it)
}

/// Whether a table is likely the journal of a tool that nobody here knows, or says which version the schema has.
pub fn is_likely(name: &str, columns: &[&str]) -> bool {
    let is_meta =
        || is_like_any(name, &META_NAMES) && (has_one_of(columns, &WHAT) || pair(columns).is_some());
    is_like_any(name, &LIKELY_NAMES) || is_meta() || tells_history(columns)
}

/// Whether a table of nobody's tool says, by its name and its columns, how far its database has been migrated.
pub fn says_version(name: &str, columns: &[&str]) -> bool {
    // Birds migrate as well.
    let tells_of_schemas =
        columns.len() == 1 || [&WHAT[..], &WHEN, &MIGRATION].iter().any(|wanted| has_one_of(columns, wanted));
    let is_of_birds = is_match(LIKELY_NAMES[0], name) && !tells_of_schemas;
    is_like_any(name, &LIKELY_NAMES) && !is_of_birds || tells_history(columns)
}

/// The column of keys of a table that holds pairs and may keep, among other things, which version its schema has.
pub fn pairs_key<'c>(name: &str, columns: &[&'c str]) -> Option<&'c str> {
    let [key, _] = pair(columns).filter(|_| is_like_any(name, &META_NAMES))?;
    columns.iter().find(|own| own.eq_ignore_ascii_case(key)).copied()
}

/// What is said of journals that stay at home, each with its tool.
pub fn at_home(journals: &[(&str, &str)]) -> Option<String> {
    let named: Vec<String> = journals.iter().map(|(name, tool)| format!("{name} ({tool})")).collect();
    (!named.is_empty()).then(|| {
        format!(
            "not shared: {}: what a migration tool has done to one database, and would then believe to have done to \
             others; name them in tables.include to share them all the same",
            named.join(", ")
        )
    })
}

/// What is said of tables that are likely journals, and shared.
pub fn perhaps(tables: &[&str]) -> Option<String> {
    (!tables.is_empty()).then(|| {
        format!(
            "these tables look as if they said how far this database has been migrated, and are shared: {}. If they \
             do, name them in tables.exclude: an agent that has not migrated would believe that it has",
            tables.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Agreement;

    fn of(name: &str, columns: &[&str]) -> Option<&'static str> {
        tool(name, columns)
    }

    #[test]
    fn a_journal_is_known_by_its_name_or_by_its_columns() {
        for (name, columns, expected) in [
            ("Kysely_Migration", &["whatever"][..], "kysely"),
            ("__efmigrationshistory", &[], "Entity Framework"),
            ("migrations", &["id", "timestamp", "name"], "TypeORM"),
            ("my_migrations", &["id", "timestamp", "name"], "TypeORM"),
            ("migrations", &["dir", "version", "filename", "sql", "hash"], "Chroma"),
            ("migrations", &["id", "migration", "batch"], "Laravel"),
            ("journal", &["batch", "migration_time", "name", "ID"], "knex"),
            ("journal_lock", &["index", "is_locked"], "knex"),
            ("app_version", &["version_num"], "Alembic"),
        ] {
            assert_eq!(of(name, columns), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_table_of_the_applications_own_is_none() {
        for (name, columns) in [
            ("migrations", &["id", "bird", "from_place", "to_place"][..]),
            ("bird_migration", &["id", "timestamp", "name"]),
            ("notes", &["id", "timestamp", "name"]),
            ("migrations", &["id", "timestamp", "name", "bird"]),
            ("locks", &["index", "is_locked"]),
            ("django_content_type", &["id", "app_label", "model"]),
        ] {
            assert_eq!(of(name, columns), None, "{name}");
        }
    }

    #[test]
    fn a_definition_of_the_tenants_is_known_without_the_number_that_it_does_not_name() {
        let table = |name: &str, key, columns: &[&str]| TableSchema {
            name: name.into(),
            key,
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            ddl: String::new(),
            indexes: Vec::new(),
            agreed: Agreement::default(),
        };
        assert_eq!(tool_of(&table("migrations", KeyKind::Number, &["timestamp", "name"])), Some("TypeORM"));
        assert_eq!(tool_of(&table("migrations", KeyKind::Natural, &["timestamp", "name"])), None);
        assert_eq!(tool_of(&table("journal_lock", KeyKind::Number, &["is_locked"])), Some("knex"));
        assert_eq!(tool_of(&table("alembic_version", KeyKind::Natural, &["version_num"])), Some("Alembic"));
        assert_eq!(tool_of(&table("lines", KeyKind::Number, &["line"])), None);
    }

    #[test]
    fn a_table_that_says_how_far_its_database_is_has_more_than_a_name() {
        for (name, columns) in [
            ("schema_version", &["version"][..]),
            ("_migrations", &["id", "name"]),
            ("migrations", &["n"]),
            ("app_migrations", &["id", "applied_at"]),
            ("done", &["name", "checksum", "applied_at"]),
        ] {
            assert!(says_version(name, columns), "{name}");
        }
        for (name, columns) in [
            ("bird_migration", &["id", "place"][..]),
            ("meta", &["key", "value"]),
            ("documents", &["id", "version", "body"]),
        ] {
            assert!(!says_version(name, columns), "{name}");
        }
        assert_eq!(pairs_key("app_meta", &["value", "Key"]), Some("Key"));
        assert_eq!(pairs_key("kv", &["key", "value"]), None);
        assert_eq!(pairs_key("meta", &["key", "value", "at"]), None);
    }

    #[test]
    fn what_is_likely_a_journal_is_told_by_name_or_shape() {
        for (name, columns) in [
            ("app_migrations", &["x"][..]),
            ("schema_version", &["version"]),
            ("SchemaVersions", &["id"]),
            ("meta", &["key", "value"]),
            ("app_meta", &["id", "version"]),
            ("done", &["name", "checksum", "applied_at"]),
        ] {
            assert!(is_likely(name, columns), "{name}");
        }
        for (name, columns) in [
            ("memories", &["id", "key", "value"][..]),
            ("kv", &["key", "value"]),
            ("meta_prompts", &["key", "value"]),
            ("document_metadata", &["id", "document", "author"]),
            ("documents", &["id", "version", "body"]),
            ("jobs", &["id", "name", "executed_at"]),
        ] {
            assert!(!is_likely(name, columns), "{name}");
        }
    }
}
