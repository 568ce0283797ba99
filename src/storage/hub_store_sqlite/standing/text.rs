//! Which text makes a table where it is missing.

use super::{Settling, Verdict};
use crate::model::TableSchema;
use crate::storage::fitting::{Fitting, Made};
use crate::storage::hub_store::StoreError;
use crate::storage::hub_store_sqlite::definitions::Definition;
use crate::storage::hub_store_sqlite::tables::Table;

impl Settling<'_> {
    /// The text that stands, with what those make that are declared; none if there is none that makes the table.
    pub(super) fn choose_text(
        &mut self,
        table: &Table,
        all: &mut [Definition],
        forgets: bool,
    ) -> Result<Option<(Fitting, Vec<Made>)>, StoreError> {
        let with = |ddl: &str| TableSchema { ddl: ddl.to_owned(), ..table.schema.clone() };
        let mut declared = Vec::new();
        for (at, definition) in all.iter_mut().enumerate() {
            if definition.is_index || !definition.is_declared() || self.is_dropped(&definition.text) {
                continue;
            }
            match Fitting::new(&with(&definition.text)) {
                Ok(fitting) => declared.push((at, fitting)),
                Err(why) => {
                    definition.why = Some(format!(
                        "the definition of table {}, as agent {} declares it, is not taken: {why}",
                        table.schema.name, definition.agent
                    ));
                }
            }
        }
        let numbers: Vec<usize> = declared.iter().map(|(at, _)| *at).collect();
        let texts: Vec<Made> = declared.iter().map(|(_, fitting)| fitting.made().clone()).collect();
        let stands = Fitting::new(&with(&table.schema.ddl)).ok();
        let of_standing = all.iter().position(|it| !it.is_index && it.text == table.schema.ddl);
        let is_declared = of_standing.is_some_and(|at| all[at].is_declared());
        let is_refuted =
            self.refuted.contains(&table.id) || of_standing.is_some_and(|at| all[at].why.is_some());
        let covers = |fitting: &Fitting| table.schema.columns.iter().all(|column| fitting.made().has(column));
        let chosen = match stands {
            Some(text) if !is_refuted && covers(&text) && (is_declared || !forgets) => text,
            stands => {
                let sound = stands.as_ref().filter(|_| !is_refuted);
                // Those that have all columns come first; others are asked only where nothing else is sound.
                let (first, rest): (Vec<usize>, Vec<usize>) =
                    (0..declared.len()).partition(|place| covers(&declared[*place].1));
                let rest = if sound.is_none() { rest } else { Vec::new() };
                let mut found = None;
                for place in first.into_iter().chain(rest) {
                    let (at, fitting) = &declared[place];
                    if self.may_stand(table, fitting, (sound, &texts), &mut all[*at])? {
                        found = Some(place);
                    }
                    if found.is_some() || self.is_left {
                        break;
                    }
                }
                let base = match found {
                    Some(place) => Some(declared.swap_remove(place).1),
                    None => stands,
                };
                let Some(base) = base else { return Ok(None) };
                self.complete(table, base, (all, &texts))?
            }
        };
        if is_refuted
            && let Some(at) = of_standing
            && all[at].why.is_none()
        {
            all[at].why = Some(if chosen.table().ddl == table.schema.ddl {
                format!(
                    "rows of this tenant contradict the definition of table {}, as agent {} declares it, and are set \
                     aside where it is made so",
                    table.schema.name, all[at].agent
                )
            } else {
                contradicted(table, &all[at])
            });
        }
        for (at, made) in numbers.into_iter().zip(&texts) {
            all[at].is_laxer = chosen.made().is_stricter_than(made, &|_| false);
        }
        Ok(Some((chosen, texts)))
    }

    /// Whether the tenant's rows can live under a text that is declared; notes why not.
    fn may_stand(
        &mut self,
        table: &Table,
        fitting: &Fitting,
        (sound, texts): (Option<&Fitting>, &[Made]),
        definition: &mut Definition,
    ) -> Result<bool, StoreError> {
        if definition.why.is_some() {
            return Ok(false);
        }
        let is_new = |column: &str| texts.iter().filter(|it| it.has(column)).count() < 2;
        if sound.is_some_and(|it| !fitting.made().is_stricter_than(it.made(), &is_new)) {
            return Ok(true);
        }
        let Some(verdict) = self.judge(table.id, fitting.table(), true)? else { return Ok(false) };
        match verdict {
            Verdict::Fits => Ok(true),
            Verdict::Contradicted(_) => {
                definition.why = Some(contradicted(table, definition));
                Ok(false)
            }
            Verdict::TooMany => {
                definition.why = Some(format!(
                    "the definition of table {}, as agent {} declares it, is not handed to newcomers: there are too many \
                     rows to look at",
                    table.schema.name, definition.agent
                ));
                Ok(false)
            }
        }
    }

    /// Adds the columns that a text lacks, as far as the tenant's rows can live with what is asked of them.
    fn complete(
        &mut self,
        table: &Table,
        mut text: Fitting,
        (all, texts): (&[Definition], &[Made]),
    ) -> Result<Fitting, StoreError> {
        let is_new = |column: &str| texts.iter().filter(|it| it.has(column)).count() < 2;
        for column in &table.schema.columns {
            if text.made().has(column) {
                continue;
            }
            let mut declared =
                all.iter().filter(|it| !it.is_index && it.is_declared() && !self.is_dropped(&it.text));
            let Some(longer) = declared.find_map(|it| text.with_column(column, &it.text).ok()) else {
                continue;
            };
            if !longer.made().is_stricter_than(text.made(), &is_new)
                || self.judge(table.id, longer.table(), true)? == Some(Verdict::Fits)
            {
                text = longer;
            }
        }
        Ok(text)
    }
}

fn contradicted(table: &Table, definition: &Definition) -> String {
    format!(
        "the definition of table {}, as agent {} declares it, is not handed to newcomers: rows of this tenant contradict \
         it. It stays that agent's own, and rows that it refuses are set aside there",
        table.schema.name, definition.agent
    )
}
