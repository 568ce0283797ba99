//! What an application does with its database beside a sync.

use federation_hub::model::Value;
use federation_hub::storage::driver::{SqlDriver, batch};

/// Runs statements.
pub async fn run(database: &dyn SqlDriver, statements: &str) {
    let statements = statements.to_owned();
    batch(database, move |sql| sql.run(&statements)).await.unwrap().unwrap();
}

/// The rows of a query.
pub async fn rows(database: &dyn SqlDriver, query: &str) -> Vec<Vec<Value>> {
    let query = query.to_owned();
    let read = batch(database, move |sql| {
        let mut rows = Vec::new();
        sql.query(&query, &[], &mut |row| {
            rows.push(row.to_vec());
            Ok(())
        })
        .map(|()| rows)
    });
    read.await.unwrap().unwrap()
}
