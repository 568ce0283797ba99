//! What modules of virtual tables, and vector indexes, keep in ordinary tables: those belong to their index, and an
//! index is made of what one database holds. SQLite knows them only where the module is loaded, and says so itself; so
//! they are known here by their names.

use crate::model::TableSchema;

/// A module of virtual tables, and what it keeps in tables that are named after the virtual table.
struct Module {
    /// Its names, in lower case.
    names: &'static [&'static str],
    /// What follows the virtual table's name and `_`; `#` stands for digits.
    parts: &'static [&'static str],
    /// Those that no other table is like, each with columns that it has besides an `INTEGER PRIMARY KEY`.
    telling: &'static [(&'static str, &'static [&'static str])],
}

/// The modules that people use, from their sources.
const MODULES: &[Module] = &[
    Module {
        names: &["fts5"],
        parts: &["data", "idx", "content", "docsize", "config"],
        telling: &[("idx", &["segid", "term", "pgno"])],
    },
    Module {
        names: &["fts4", "fts3", "fts2", "fts1"],
        parts: &["content", "segments", "segdir", "docsize", "stat", "term"],
        telling: &[("segdir", &["level", "idx", "start_block", "leaves_end_block", "root"])],
    },
    Module {
        names: &["rtree", "rtree_i32", "geopoly"],
        parts: &["node", "parent", "rowid"],
        telling: &[("parent", &["parentnode"])],
    },
    // sqlite-vec, and what is built after it.
    Module {
        names: &["vec0"],
        parts: &[
            "info",
            "chunks",
            "rowids",
            "auxiliary",
            "vector_chunks#",
            "metadatachunks#",
            "metadatatext#",
            "rescore_chunks#",
            "rescore_vectors#",
            "ivf_centroids#",
            "ivf_cells#",
            "ivf_rowid_map#",
            "diskann_nodes#",
            "diskann_buffer#",
            "annoy_nodes#",
            "annoy_buffer#",
            "annoy_meta#",
            "config",
            "data",
            "graph",
            "layers",
        ],
        telling: &[
            ("vector_chunks#", &["vectors"]),
            ("chunks", &["size", "validity", "rowids"]),
            ("rowids", &["id", "chunk_id", "chunk_offset"]),
        ],
    },
    Module { names: &["vss0"], parts: &["index", "data"], telling: &[] },
    Module {
        names: &["spellfix1"],
        parts: &["vocab"],
        telling: &[("vocab", &["rank", "langid", "word", "k1", "k2"])],
    },
    // These keep nothing in tables.
    Module {
        names: &[
            "fts5vocab",
            "fts4aux",
            "fts3tokenize",
            "dbstat",
            "csv",
            "unionvtab",
            "swarmvtab",
            "transitive_closure",
            "approximate_match",
            "virtualspatialindex",
            "virtualelementary",
            "virtualknn",
            "virtualknn2",
        ],
        parts: &[],
        telling: &[],
    },
];

/// What libsql keeps for itself.
const LIBSQL: [&str; 2] = ["libsql_vector_meta_shadow", "libsql_wasm_func_table"];
/// What follows a vector index's name.
const LIBSQL_SHADOW: &str = "shadow";
/// The columns of that, besides the last, which may be several.
const LIBSQL_COLUMNS: [&str; 2] = ["index_key", "data"];
/// The function that such an index is over.
const LIBSQL_FUNCTION: &str = "libsql_vector_idx";

/// What a virtual table's module says of a table that is named after the virtual table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belongs {
    /// It is one of its parts.
    Surely,
    /// Nobody here knows what the module calls its parts.
    Perhaps,
}

/// Whether a table belongs to a virtual table of this name and module.
pub fn belongs(table: &str, virtual_table: &str, module: &str) -> Option<Belongs> {
    let part = after(table, virtual_table)?;
    let module = module.to_ascii_lowercase();
    match MODULES.iter().find(|it| it.names.contains(&module.as_str())) {
        Some(known) => known.parts.iter().any(|it| is_part(part, it)).then_some(Belongs::Surely),
        None => Some(Belongs::Perhaps),
    }
}

/// Whether a table is libsql's own, or what it keeps for one of the vector indexes of these names.
pub fn is_libsqls(table: &str, mut vector_indexes: impl Iterator<Item = impl AsRef<str>>) -> bool {
    let is_shadow =
        |index: &str| after(table, index).is_some_and(|it| it.eq_ignore_ascii_case(LIBSQL_SHADOW));
    LIBSQL.iter().any(|own| own.eq_ignore_ascii_case(table))
        || vector_indexes.any(|it| is_shadow(it.as_ref()))
}

/// Whether the definition of an index makes a vector index of libsql's.
pub fn is_vector_index(definition: &str) -> bool {
    definition.to_ascii_lowercase().contains(LIBSQL_FUNCTION)
}

/// Those of a tenant's tables that were shared before anybody knew them for parts of an index, by their names and
/// columns. Made here, they would be in the way of the index.
pub fn among(told: &[TableSchema]) -> Vec<&str> {
    let mut bases: Vec<(&Module, &str)> = Vec::new();
    for table in told {
        for module in MODULES {
            let base = module
                .telling
                .iter()
                .find_map(|(part, columns)| has(table, columns).then(|| before(&table.name, part)).flatten());
            bases.extend(base.map(|base| (module, base)));
        }
    }
    let is_part = |table: &TableSchema| {
        let named = |(module, base): &(&Module, &str)| {
            after(&table.name, base).is_some_and(|part| module.parts.iter().any(|it| is_part(part, it)))
        };
        let is_shadow = || before(&table.name, LIBSQL_SHADOW).is_some() && has(table, &LIBSQL_COLUMNS[1..]);
        let is_vectors = || is_shadow() && table.ddl.to_ascii_lowercase().contains(LIBSQL_COLUMNS[0]);
        bases.iter().any(named) || is_libsqls(&table.name, std::iter::empty::<&str>()) || is_vectors()
    };
    told.iter().filter(|table| is_part(table)).map(|table| table.name.as_str()).collect()
}

fn has(table: &TableSchema, columns: &[&str]) -> bool {
    let is_there = |name: &&str| table.columns.iter().any(|own| own.eq_ignore_ascii_case(name));
    columns.iter().all(is_there)
}

/// What follows a name and an underscore.
fn after<'t>(table: &'t str, name: &str) -> Option<&'t str> {
    let start = table.get(..name.len())?;
    if !start.eq_ignore_ascii_case(name) {
        return None;
    }
    table[name.len()..].strip_prefix('_').filter(|rest| !rest.is_empty())
}

/// What stands before an underscore and a part.
fn before<'t>(table: &'t str, part: &str) -> Option<&'t str> {
    let table_without =
        if part.ends_with('#') { table.trim_end_matches(|it: char| it.is_ascii_digit()) } else { table };
    let part = part.trim_end_matches('#');
    let at = table_without.len().checked_sub(part.len())?;
    let end = table_without.get(at..)?;
    if !end.eq_ignore_ascii_case(part) {
        return None;
    }
    table_without[..at].strip_suffix('_').filter(|rest| !rest.is_empty())
}

fn is_part(name: &str, part: &str) -> bool {
    match part.strip_suffix('#') {
        Some(part) => {
            let digits = name.get(part.len()..).unwrap_or_default();
            name.get(..part.len()).is_some_and(|start| start.eq_ignore_ascii_case(part))
                && digits.chars().all(|it| it.is_ascii_digit())
        }
        None => name.eq_ignore_ascii_case(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Agreement, KeyKind};

    #[test]
    fn parts_are_known_by_what_their_module_calls_them() {
        for (table, index, module) in [
            ("notes_fts_data", "notes_fts", "fts5"),
            ("Docs_SEGDIR", "docs", "FTS4"),
            ("places_rowid", "places", "rtree_i32"),
            ("v_vector_chunks00", "v", "vec0"),
            ("v_vector_chunks113", "v", "vec0"),
            ("v_metadatatext00", "v", "vec0"),
            ("v_info", "v", "vec0"),
            ("ä ö_data", "ä ö", "vss0"),
        ] {
            assert_eq!(belongs(table, index, module), Some(Belongs::Surely), "{table}");
        }
    }

    #[test]
    fn a_table_that_merely_has_such_a_name_is_none() {
        for (table, index, module) in [
            ("notes_archive", "notes", "fts5"),
            ("notes_chunks", "notes", "fts5"),
            ("notes_data_old", "notes", "fts5"),
            ("notes_", "notes", "fts5"),
            ("notesdata", "notes", "fts5"),
            ("v_chunks2", "v", "vec0"),
            ("v_vector_chunksx", "v", "vec0"),
            ("words_content", "words", "fts5vocab"),
            ("ä_data", "a", "fts5"),
            ("data", "data_of", "fts5"),
        ] {
            assert_eq!(belongs(table, index, module), None, "{table}");
        }
    }

    #[test]
    fn of_a_module_that_nobody_knows_any_may_be_one() {
        assert_eq!(belongs("graph_edges", "graph", "ours"), Some(Belongs::Perhaps));
        assert_eq!(belongs("graphs", "graph", "ours"), None);
    }

    #[test]
    fn a_vector_index_of_libsqls_has_one_table_and_shares_another() {
        assert!(is_vector_index("CREATE INDEX i ON t(LIBSQL_vector_idx(embedding, 'metric=cosine'))"));
        assert!(
            is_libsqls("I_shadow", ["h", "i"].iter())
                && is_libsqls("libsql_vector_meta_shadow", ["i"].iter())
        );
        assert!(!is_libsqls("i_shadow", ["h"].iter()) && !is_libsqls("i_shadow_idx", ["i"].iter()));
    }

    fn table(name: &str, columns: &[&str], ddl: &str) -> TableSchema {
        TableSchema {
            name: name.into(),
            key: KeyKind::Number,
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            ddl: ddl.into(),
            indexes: Vec::new(),
            agreed: Agreement::default(),
        }
    }

    #[test]
    fn what_was_shared_once_is_known_by_its_name_and_columns() {
        let told = [
            table("v_vector_chunks00", &["rowid", "vectors"], ""),
            table("v_info", &["key", "value"], ""),
            table("v_notes", &["key", "value"], ""),
            table("w_info", &["key", "value"], ""),
            table("pages_chunks", &["text"], ""),
            table(
                "i_shadow",
                &["data"],
                "CREATE TABLE i_shadow (index_key INTEGER, data BLOB, PRIMARY KEY (index_key))",
            ),
            table("j_shadow", &["data"], "CREATE TABLE j_shadow (id INTEGER PRIMARY KEY, data BLOB)"),
            table("libsql_vector_meta_shadow", &["name", "metadata"], ""),
        ];
        assert_eq!(among(&told), ["v_vector_chunks00", "v_info", "i_shadow", "libsql_vector_meta_shadow"]);
    }
}
