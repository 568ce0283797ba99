//! The application's function that gives tokens, asked on its own thread for each connection.
//!
//! It may answer with a promise. So JavaScript awaits it, and hands the answer in by the number of the question.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::js_thread::{JsThread, Turn};
use super::raw::{Fault, Local, Scope};
use crate::engine::token_source::TokenSource;

type Answer = oneshot::Sender<Result<String, String>>;

/// Questions that JavaScript has not answered yet.
#[derive(Default)]
pub struct OpenQuestions {
    last: AtomicU32,
    waiting: Mutex<HashMap<u32, Answer>>,
}

impl OpenQuestions {
    fn add(&self, answer: Answer) -> u32 {
        let id = self.last.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever asked may have given up.
        waiting.retain(|_, answer| !answer.is_closed());
        waiting.insert(id, answer);
        id
    }

    /// Answers a question; once, and only if somebody waits still.
    pub fn answer(&self, id: u32, outcome: Result<String, String>) {
        let asker = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(asker) = asker {
            let _ = asker.send(outcome);
        }
    }
}

/// Calls the method `ask` of an object that the call from JavaScript keeps.
pub struct JsTokens {
    thread: JsThread,
    /// Which of the kept objects it is.
    place: usize,
    questions: Arc<OpenQuestions>,
}

impl JsTokens {
    /// A source over the object that is kept at this place.
    pub fn new(thread: JsThread, place: usize, questions: Arc<OpenQuestions>) -> Self {
        Self { thread, place, questions }
    }
}

impl TokenSource for JsTokens {
    fn ask(&self, answer: Answer) {
        let (place, questions) = (self.place, Arc::clone(&self.questions));
        self.thread.run(move |turn| {
            let id = questions.add(answer);
            if ask(turn, place, id).is_none() {
                questions.answer(id, Err("its thread is ending".to_owned()));
            }
        });
    }
}

fn ask(turn: &Turn<'_>, place: usize, id: u32) -> Option<()> {
    let tokens = turn.kept(place)?;
    turn.scope().nested(|scope, _| call(scope, tokens, id).ok())
}

fn call<'n>(scope: Scope<'n>, tokens: Local<'_>, id: u32) -> Result<(), Fault<'n>> {
    let ask = scope.get(tokens, c"ask")?;
    scope.call(tokens, ask, &[scope.number(f64::from(id))?]).map(drop)
}
