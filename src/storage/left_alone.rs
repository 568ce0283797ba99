//! What a catalog says that people should know: once for each database.

use super::bookkeeping::schema_version;
use super::catalog::Catalog;
use super::driver::{Sql, SqlError};
use super::replica::CachedCatalog;
use super::told;
use super::transaction::{Purpose, transaction, without_waiting};

/// What remembered notices of a catalog begin with.
const OF_CATALOG: &str = "catalog: ";

/// What people were not told of a database yet, or not since it was mended.
#[derive(Debug, Default)]
pub struct News {
    /// Tables that are not shared, each with the reason.
    pub left_alone: Vec<(String, String)>,
    /// What the options say that does not fit, and what else there is.
    pub notices: Vec<String>,
}

/// Finds what is news in a catalog: what is left out in silence is missed only when it is needed. It counts as told from now
/// on. Gives the catalog back.
///
/// # Errors
/// Those of the database; a later turn may succeed.
pub fn tell_catalog(sql: &mut dyn Sql, mut cached: CachedCatalog) -> Result<(CachedCatalog, News), SqlError> {
    let told = without_waiting(sql, |sql| {
        transaction(sql, Purpose::Collect, |sql| {
            let before = schema_version(sql)?;
            let news = news_of(sql, &cached.catalog)?;
            Ok((before, news, schema_version(sql)?))
        })
    });
    let (before, news, after) = told?;
    if cached.schema_version == before {
        cached.schema_version = after;
    }
    Ok((cached, news))
}

fn news_of(sql: &mut dyn Sql, catalog: &Catalog) -> Result<News, SqlError> {
    let key = |notice: &str| format!("{OF_CATALOG}{notice}");
    let key_of = |(table, why): &(String, String)| key(&format!("{table} ({why})"));
    let left_alone = catalog.left_alone.iter();
    let now: Vec<String> =
        left_alone.clone().map(key_of).chain(catalog.notices.iter().map(|notice| key(notice))).collect();
    let told = told::remember(sql, OF_CATALOG, &now)?;
    Ok(News {
        left_alone: left_alone.filter(|it| !told.contains(&key_of(it))).cloned().collect(),
        notices: catalog.notices.iter().filter(|notice| !told.contains(&key(notice))).cloned().collect(),
    })
}
