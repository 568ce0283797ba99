//! The first stream of an agent's connection on the hub's side, sans-IO: a [`HubSession`] lets an agent in, or not.
//!
//! It is driven as each stream after it is: see [`super::hub_exchange`].

use std::collections::VecDeque;

use super::hub_request::Caller;
use super::limits::MAX_ID_BYTES;
use super::message::{Hello, Refusal, Refused, ToAgent, ToHub, Welcome};

/// What happened to a [`HubSession`].
#[derive(Clone, Debug)]
pub enum SessionInput {
    /// The agent said something.
    Message(ToHub),
    /// The token was verified: whom it speaks for, or why it is no good.
    Verified(Result<Caller, String>),
    /// The store has found the caller.
    Welcomed(Result<Welcome, Refused>),
}

/// What a [`HubSession`] wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOutput {
    /// Verify this token.
    Verify {
        /// The JWT.
        token: String,
    },
    /// Ask the store for what a [`Welcome`] says.
    Welcome(Caller),
    /// Send this.
    Send(ToAgent),
    /// The agent is in: its other streams may be read.
    Ready(Caller),
    /// Close the connection, once everything is sent.
    Close(Refusal),
}

enum SessionState {
    AwaitHello,
    Verifying(Caller),
    Welcoming(Caller),
    Ready,
    Closed,
}

/// The first stream of a connection. Nothing but a `Hello` is read before the token was verified.
pub struct HubSession {
    state: SessionState,
    outputs: VecDeque<SessionOutput>,
}

impl Default for HubSession {
    fn default() -> Self {
        Self { state: SessionState::AwaitHello, outputs: VecDeque::new() }
    }
}

impl HubSession {
    /// What to do next; nothing while the session waits.
    pub fn poll(&mut self) -> Option<SessionOutput> {
        self.outputs.pop_front()
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: SessionInput) {
        let state = std::mem::replace(&mut self.state, SessionState::Closed);
        self.state = match (state, input) {
            (SessionState::AwaitHello, SessionInput::Message(ToHub::Hello(hello))) => self.hello(hello),
            (SessionState::Verifying(caller), SessionInput::Verified(Ok(proved))) if proved == caller => {
                self.outputs.push_back(SessionOutput::Welcome(caller.clone()));
                SessionState::Welcoming(caller)
            }
            (SessionState::Verifying(_), SessionInput::Verified(Ok(_))) => self.refuse(Refused::new(
                Refusal::Unauthenticated,
                "the token is of another tenant or agent: use the one that was issued for this agent",
            )),
            (SessionState::Verifying(_), SessionInput::Verified(Err(reason))) => {
                self.refuse(Refused::new(Refusal::Unauthenticated, reason))
            }
            (SessionState::Welcoming(caller), SessionInput::Welcomed(Ok(welcome))) => {
                self.outputs.push_back(SessionOutput::Send(ToAgent::Welcome(welcome)));
                self.outputs.push_back(SessionOutput::Ready(caller));
                SessionState::Ready
            }
            (SessionState::Welcoming(_), SessionInput::Welcomed(Err(why))) => self.refuse(why),
            (SessionState::Closed, _) => SessionState::Closed,
            _ => self.refuse(Refused::new(Refusal::Protocol, "a connection's first stream is for one Hello")),
        };
    }

    fn hello(&mut self, Hello { tenant, agent, token }: Hello) -> SessionState {
        let named = |name: &str| !name.is_empty() && name.len() <= MAX_ID_BYTES;
        if !named(&tenant) || !named(&agent) {
            let message = format!("the tenant's and the agent's name must have 1 to {MAX_ID_BYTES} bytes");
            return self.refuse(Refused::new(Refusal::Protocol, message));
        }
        self.outputs.push_back(SessionOutput::Verify { token });
        SessionState::Verifying(Caller { tenant, agent })
    }

    fn refuse(&mut self, why: Refused) -> SessionState {
        let reason = why.reason;
        self.outputs.push_back(SessionOutput::Send(ToAgent::Refused(why)));
        self.outputs.push_back(SessionOutput::Close(reason));
        SessionState::Closed
    }
}

#[cfg(test)]
mod tests;
