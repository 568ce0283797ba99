//! What the application's triggers do, read off the programs that SQLite makes of them.
//!
//! `EXPLAIN` of a statement lists, behind the statement's own program, that of each trigger that it fires. A program
//! writes a virtual table by `VUpdate`, any other table by a cursor that `OpenWrite` opens, or by `Clear`, and it ends
//! the statement by `Halt` with a code, which is what RAISE becomes.

use std::sync::{Arc, Mutex, PoisonError};

use super::catalog::{Table, quote};
use super::driver::{Sql, SqlError, SqlErrorKind};
use super::fields::Fields;
use super::sql_text::{Token, tokens};
use crate::model::Value;

/// What a trigger does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It writes virtual tables, and nothing else: it keeps an index.
    KeepsIndex {
        /// Whether it reads other tables for that.
        reads_tables: bool,
    },
    /// It keeps an index as well, or may do, and cannot run for what is applied: for this reason.
    LeavesIndex(String),
    /// Anything else.
    Other,
}

/// A trigger of the application.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// The statement that makes it.
    pub text: String,
    /// Whether it is TEMP.
    pub is_temporary: bool,
}

impl Trigger {
    /// The statement that takes it away.
    pub fn drop_statement(&self) -> String {
        let schema = if self.is_temporary { "temp" } else { "main" };
        format!("DROP TRIGGER {schema}.{}", quote(&self.name))
    }

    /// Whether its text has one of these names.
    pub fn names_any(&self, names: &[String]) -> bool {
        let tokens = tokens(&self.text).unwrap_or_default();
        let is_one = |own: String| names.iter().any(|name| name.eq_ignore_ascii_case(&own));
        tokens.iter().filter_map(Token::name).any(is_one)
    }

    /// Whether one of its statements begins with this word.
    fn has_statement(&self, word: &str) -> bool {
        let tokens = tokens(&self.text).unwrap_or_default();
        tokens.windows(2).any(|pair| (pair[0].is("BEGIN") || pair[0].is(";")) && pair[1].is(word))
    }

    /// Whether it says what becomes of a row that is in the way, which the statement that fires it may overrule.
    fn resolves_conflicts(&self) -> bool {
        let tokens = tokens(&self.text).unwrap_or_default();
        let is_way = |pair: &[Token<'_>]| {
            pair[0].is("OR") && ["REPLACE", "IGNORE", "FAIL", "ROLLBACK"].iter().any(|way| pair[1].is(way))
        };
        tokens.windows(2).any(is_way) || self.has_statement("REPLACE")
    }
}

/// What is known of the triggers of a table, as long as the schema stays what it is.
#[derive(Clone, Debug, Default)]
pub struct KnownEffects(Arc<Mutex<Option<Known>>>);

#[derive(Clone, Debug)]
struct Known {
    effects: Vec<Effect>,
    /// Whether all of them can be run. Otherwise the application may yet load what one of them lacks.
    is_final: bool,
}

impl KnownEffects {
    fn get(&self) -> Option<Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, effects: &[Effect], is_final: bool) {
        let known = Known { effects: effects.to_vec(), is_final };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }
}

/// What each of a table's triggers does; `triggers` are all that the application has on it, and they are there.
pub fn effects(sql: &mut dyn Sql, table: &Table, triggers: &[Trigger]) -> Result<Vec<Effect>, SqlError> {
    // The schema version counts no TEMP triggers.
    let may_keep = !triggers.iter().any(|trigger| trigger.is_temporary);
    let known = if may_keep { table.effects.get() } else { None };
    if let Some(Known { effects, is_final: true }) = known {
        return Ok(effects);
    }
    let (effects, is_final) = match (read(sql, table, triggers), known) {
        (Ok(effects), _) => (effects, true),
        (Err(error), _) if passes(error.kind) => return Err(error),
        (Err(_), Some(Known { effects, .. })) => return Ok(effects),
        (Err(_), None) => (one_by_one(sql, table, triggers)?, false),
    };
    if may_keep {
        table.effects.set(&effects, is_final);
    }
    Ok(effects)
}

/// Whether a failure says nothing of triggers: it is the turn's.
fn passes(kind: SqlErrorKind) -> bool {
    matches!(kind, SqlErrorKind::Busy | SqlErrorKind::InTransaction | SqlErrorKind::Closed)
}

/// As [`effects`], where one of the triggers lacks something that this connection has not.
fn one_by_one(sql: &mut dyn Sql, table: &Table, triggers: &[Trigger]) -> Result<Vec<Effect>, SqlError> {
    for trigger in triggers {
        sql.run(&trigger.drop_statement())?;
    }
    let mut effects = Vec::with_capacity(triggers.len());
    for trigger in triggers {
        sql.run(&trigger.text)?;
        effects.push(match read(sql, table, std::slice::from_ref(trigger)) {
            Ok(mut effects) => effects.pop().unwrap_or(Effect::Other),
            Err(error) if passes(error.kind) => return Err(error),
            Err(error) if names_virtual_table(sql, trigger)? => Effect::LeavesIndex(error.message),
            Err(_) => Effect::Other,
        });
        sql.run(&trigger.drop_statement())?;
    }
    for trigger in triggers {
        sql.run(&trigger.text)?;
    }
    Ok(effects)
}

/// Whether a trigger's text has the name of a virtual table.
fn names_virtual_table(sql: &mut dyn Sql, trigger: &Trigger) -> Result<bool, SqlError> {
    let mut tables = Vec::new();
    sql.query(
        "SELECT name FROM main.sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE %'",
        &[],
        &mut |row| {
            tables.push(Fields::of(row).text()?);
            Ok(())
        },
    )?;
    Ok(trigger.names_any(&tables))
}

/// Reads what the triggers do.
fn read(sql: &mut dyn Sql, table: &Table, triggers: &[Trigger]) -> Result<Vec<Effect>, SqlError> {
    let (name, or_abort) = (quote(&table.name), table.or_abort());
    let columns = table.columns.iter().map(|column| column.name.as_str());
    let columns = columns.chain(table.key_columns()).map(|column| format!("{0} = {0}", quote(column)));
    let mut programs = Vec::new();
    for statement in [
        format!("INSERT{or_abort} INTO main.{name} DEFAULT VALUES"),
        format!("UPDATE{or_abort} main.{name} SET {}", columns.collect::<Vec<_>>().join(", ")),
        format!("DELETE FROM main.{name} WHERE 1"),
    ] {
        programs.append(&mut explain(sql, &statement)?);
    }
    let is_of = |trigger: &Trigger, program: &Program| program.trigger.as_deref() == Some(&trigger.name);
    // What a trigger fires in turn, by a view that it writes: whose programs these are is not told.
    let is_deeper =
        |program: &&Program| !program.is_ours() && !triggers.iter().any(|trigger| is_of(trigger, program));
    let deeper = Program::sum(programs.iter().filter(is_deeper));
    let effect = |trigger: &Trigger| {
        let own = Program::sum(programs.iter().filter(|program| is_of(trigger, program)));
        // Where it writes a table, what that table's triggers do is no index of this one.
        let is_plain = own.does_else && !own.writes_virtual;
        let all = if own.fires && !is_plain { Program::sum([&own, &deeper]) } else { own };
        all.effect(trigger, table)
    };
    Ok(triggers.iter().map(effect).collect())
}

/// What the program of a trigger does.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each of which may be one without the others")]
struct Program {
    /// Whose it is.
    trigger: Option<String>,
    writes_virtual: bool,
    /// Whether it writes other tables, or raises an error.
    does_else: bool,
    reads_tables: bool,
    /// Whether it fires triggers itself.
    fires: bool,
}

impl Program {
    fn is_ours(&self) -> bool {
        self.trigger.as_deref().is_some_and(super::catalog::is_internal)
    }

    fn sum<'a>(programs: impl IntoIterator<Item = &'a Self>) -> Self {
        programs.into_iter().fold(Self::default(), |sum, one| Self {
            trigger: None,
            writes_virtual: sum.writes_virtual || one.writes_virtual,
            does_else: sum.does_else || one.does_else,
            reads_tables: sum.reads_tables || one.reads_tables,
            fires: sum.fires || one.fires,
        })
    }

    fn note(&mut self, opcode: &str, (p1, p2): (i64, i64)) {
        match opcode {
            "VUpdate" => self.writes_virtual = true,
            "OpenWrite" | "Clear" => self.does_else = true,
            "Halt" | "HaltIfNull" => self.does_else |= (p1, p2) != (0, 0),
            "OpenRead" => self.reads_tables = true,
            "Program" => self.fires = true,
            _ => {}
        }
    }

    fn effect(&self, trigger: &Trigger, table: &Table) -> Effect {
        if !self.writes_virtual {
            return Effect::Other;
        }
        // Of a SELECT nothing is to be had but what its functions do.
        if self.does_else || trigger.has_statement("SELECT") {
            return Effect::LeavesIndex("it does something else as well".into());
        }
        if table.resolves_conflicts && trigger.resolves_conflicts() {
            return Effect::LeavesIndex("its table and it resolve conflicts in ways of their own".into());
        }
        Effect::KeepsIndex { reads_tables: self.reads_tables }
    }
}

/// The programs of the triggers that a statement fires.
fn explain(sql: &mut dyn Sql, statement: &str) -> Result<Vec<Program>, SqlError> {
    const TRIGGER: &str = "-- TRIGGER ";
    let mut programs: Vec<Program> = Vec::new();
    sql.query(&format!("EXPLAIN {statement}"), &[], &mut |row| {
        // addr, opcode, p1, p2, p3, p4, p5, comment
        let [Value::Integer(addr), Value::Text(opcode), p1, p2, _, p4, ..] = row else {
            return Err(SqlError::corrupt("EXPLAIN lists something else"));
        };
        if *addr == 0 {
            let trigger = match p4 {
                Value::Text(text) => text.strip_prefix(TRIGGER).map(str::to_owned),
                _ => None,
            };
            programs.push(Program { trigger, ..Program::default() });
        }
        let number = |value: &Value| super::catalog::as_number(value).unwrap_or(0);
        if let Some(program) = programs.last_mut() {
            program.note(opcode, (number(p1), number(p2)));
        }
        Ok(())
    })?;
    // The first is the statement's own.
    Ok(programs.into_iter().skip(1).collect())
}
