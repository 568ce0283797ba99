use super::*;
use crate::model::ReplicaId;

fn caller(agent: &str) -> Caller {
    Caller { tenant: "acme".into(), agent: agent.into() }
}

fn hello() -> SessionInput {
    SessionInput::Message(ToHub::Hello(Hello {
        tenant: "acme".into(),
        agent: "a".into(),
        token: "jwt".into(),
    }))
}

fn reason_of(session: &mut HubSession) -> Refusal {
    let Some(SessionOutput::Send(ToAgent::Refused(why))) = session.poll() else { panic!("not refused") };
    assert_eq!(session.poll(), Some(SessionOutput::Close(why.reason)));
    assert_eq!(session.poll(), None);
    why.reason
}

#[test]
fn an_agent_is_let_in_by_its_own_token_only() {
    let mut session = HubSession::default();
    session.handle(hello());
    assert_eq!(session.poll(), Some(SessionOutput::Verify { token: "jwt".into() }));
    session.handle(SessionInput::Verified(Ok(caller("a"))));
    assert_eq!(session.poll(), Some(SessionOutput::Welcome(caller("a"))));
    let welcome = Welcome {
        hub_now_ms: 1,
        incarnation: ReplicaId([1; 16]),
        counter: 0,
        max_frame_bytes: 9,
        may_write: true,
    };
    session.handle(SessionInput::Welcomed(Ok(welcome.clone())));
    assert_eq!(session.poll(), Some(SessionOutput::Send(ToAgent::Welcome(welcome))));
    assert_eq!(session.poll(), Some(SessionOutput::Ready(caller("a"))));

    for proof in [Ok(caller("b")), Err("expired".to_owned())] {
        let mut session = HubSession::default();
        session.handle(hello());
        session.poll();
        session.handle(SessionInput::Verified(proof));
        assert_eq!(reason_of(&mut session), Refusal::Unauthenticated);
    }
}

#[test]
fn a_store_that_cannot_answer_is_named_as_the_reason() {
    let mut session = HubSession::default();
    session.handle(hello());
    session.handle(SessionInput::Verified(Ok(caller("a"))));
    while session.poll().is_some() {}
    session.handle(SessionInput::Welcomed(Err(Refused::new(Refusal::Store, "disk full"))));
    assert_eq!(reason_of(&mut session), Refusal::Store);
}

#[test]
fn names_have_one_to_five_hundred_and_twelve_bytes() {
    let (longest, longer) = ("n".repeat(MAX_ID_BYTES), "n".repeat(MAX_ID_BYTES + 1));
    for (tenant, agent, is_taken) in [
        ("t", "a", true),
        (&longest, &longest, true),
        ("", "a", false),
        ("t", "", false),
        (&longer, "a", false),
        ("t", &longer, false),
    ] {
        let mut session = HubSession::default();
        let hello = Hello { tenant: tenant.into(), agent: agent.into(), token: "jwt".into() };
        session.handle(SessionInput::Message(ToHub::Hello(hello)));
        let asked = matches!(session.poll(), Some(SessionOutput::Verify { .. }));
        assert_eq!(asked, is_taken, "{} and {} bytes", tenant.len(), agent.len());
    }
}

#[test]
fn nothing_is_read_before_hello_and_no_second_hello() {
    let mut session = HubSession::default();
    session.handle(SessionInput::Message(ToHub::End));
    assert_eq!(reason_of(&mut session), Refusal::Protocol);
    session.handle(hello());
    assert_eq!(session.poll(), None, "a closed session does nothing");

    let mut session = HubSession::default();
    session.handle(hello());
    session.poll();
    session.handle(hello());
    assert_eq!(reason_of(&mut session), Refusal::Protocol);
}
