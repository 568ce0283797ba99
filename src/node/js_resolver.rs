//! The application's function that resolves conflicts, called on its own thread between two turns.

use tokio::sync::oneshot;

use super::js_thread::{JsThread, Turn};
use super::raw::{Fault, Local, Scope};
use crate::engine::resolve::{ConflictResolver, Question, Side};
use crate::model::Value;

/// Calls the method `resolve` of an object that the call from JavaScript keeps.
pub struct JsResolver {
    thread: JsThread,
    /// Which of the kept objects it is.
    place: usize,
}

impl JsResolver {
    /// A resolver over the object that is kept at this place.
    pub fn new(thread: JsThread, place: usize) -> Self {
        Self { thread, place }
    }
}

impl ConflictResolver for JsResolver {
    fn resolve(&self, question: Question, answer: oneshot::Sender<Result<Value, String>>) {
        let place = self.place;
        self.thread.run(move |turn| {
            // Nobody waits any more only when the sync was given up.
            let _ = answer.send(ask(turn, place, &question));
        });
    }
}

fn ask(turn: &Turn<'_>, place: usize, question: &Question) -> Result<Value, String> {
    let resolver = turn.kept(place).ok_or("it is gone")?;
    turn.scope().nested(|scope, _| call(scope, resolver, question).map_err(|fault| reason(scope, &fault)))
}

fn call<'n>(scope: Scope<'n>, resolver: Local<'_>, question: &Question) -> Result<Value, Fault<'n>> {
    let mut args = vec![scope.string(&question.table)?, scope.string(&question.column)?];
    for Side { value, written_at_ms, agent } in [&question.local, &question.remote] {
        args.push(value_of(scope, value)?);
        #[expect(clippy::cast_precision_loss, reason = "48 bits of ms")]
        args.push(scope.number(*written_at_ms as f64)?);
        args.push(scope.string(agent)?);
    }
    let resolve = scope.get(resolver, c"resolve")?;
    scope.as_value(scope.call(resolver, resolve, &args)?)
}

fn value_of<'n>(scope: Scope<'n>, value: &Value) -> Result<Local<'n>, Fault<'n>> {
    match value {
        Value::Null => scope.null(),
        Value::Integer(integer) => scope.bigint(*integer),
        Value::Real(real) => scope.number(*real),
        Value::Text(text) => scope.string(text),
        Value::Blob(bytes) => Ok(scope.buffer(bytes.len())?.fill(bytes)),
    }
}

fn reason(scope: Scope<'_>, fault: &Fault<'_>) -> String {
    let Fault::Thrown(thrown) = fault else { return "its thread is ending".to_owned() };
    let message = scope.get(*thrown, c"message").and_then(|message| scope.as_string(message));
    message.unwrap_or_else(|_| "it threw something that is no error".to_owned())
}
