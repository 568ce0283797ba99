//! Whoever misbehaves costs himself something, and nobody else (invariant I17).

use super::*;

#[tokio::test]
async fn garbage_datagrams_disturb_nobody() {
    let hub = TestHub::mutual();
    let good = hub.good_agent().await;
    let stranger = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut noise = blake3::Hasher::new().finalize_xof();
    for round in 0..200 {
        let mut datagram = vec![0; 1 + round * 7 % 1400];
        noise.fill(&mut datagram);
        // Headers of every kind: long and short, with and without the fixed bit.
        datagram[0] = u8::try_from(round).unwrap();
        stranger.send_to(&datagram, hub.socket).await.unwrap();
        if round % 50 == 0 {
            assert_echo(&good, &message(round)).await;
        }
    }
    assert_echo(&good, &message(1)).await;
    assert_echo(&hub.good_agent().await, &message(1)).await;
}

#[tokio::test]
async fn a_handshake_that_is_never_finished_keeps_nobody_out() {
    let hub = TestHub::mutual();
    // An agent that sends its first packets and then nothing.
    let silent = hub.agent_tls().client_config().unwrap();
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let connecting = endpoint.connect_with(silent, hub.socket, "localhost").unwrap();
    assert_echo(&hub.good_agent().await, &message(1)).await;
    drop(connecting);
}

#[tokio::test]
async fn a_handshake_has_a_deadline() {
    let credentials = Credentials::generate([7; 32]).unwrap();
    let (cert, key) = (text(&credentials.hub_cert_pem), text(&credentials.hub_key_pem));
    let tls = HubTls { cert, key, client_ca: None, crl: None };
    let hub = HubEndpoint::bind((Ipv4Addr::LOCALHOST, 0).into(), &tls).unwrap();
    let endpoint = AgentEndpoint::new();
    let agent = AgentTls { identity: None, ca: Some(text(&credentials.ca_cert_pem)) };
    let address = hub.local_addr().unwrap().into();
    // One that is through before anybody looks at the clock is none.
    for _ in 0..1_000 {
        let connect = endpoint.connect(&address, &agent, PATIENCE);
        let refuse = async { hub.accept().await.unwrap().complete(Duration::ZERO).await };
        let (_, refused) = tokio::join!(connect, refuse);
        if let Err(error) = refused {
            assert!(matches!(error, HandshakeError::TooSlow), "{error:?}");
            return;
        }
    }
    panic!("no handshake was refused");
}

#[tokio::test]
async fn bad_frames_cost_their_own_connection() {
    let mut hub = TestHub::mutual();
    let good = hub.good_agent().await;
    let attach = ToHub::Attach(Attach { replica: crate::model::ReplicaId([1; 16]), cursor: 0, is_new: true });
    let whole = encode(&attach).unwrap();
    let claim = u32::try_from(MAX_FRAME_BYTES + 1).unwrap().to_be_bytes();
    for (bytes, expected) in [
        (vec![0xff; 4], FrameError::TooLarge(u32::MAX as usize)),
        (claim.to_vec(), FrameError::TooLarge(MAX_FRAME_BYTES + 1)),
        (vec![0; 4], FrameError::Truncated),
        (vec![0; 3], FrameError::Truncated),
        (whole[..whole.len() - 1].to_vec(), FrameError::Truncated),
        (b"\0\0\0\x02\x07\xc0".to_vec(), FrameError::UnknownEncoding(7)),
    ] {
        let seen = hub.sees(bytes).await;
        let Seen::Failed(ReceiveError::Frame(error)) = seen else { panic!("{seen:?}") };
        assert_eq!(error.to_string(), expected.to_string());
    }
    let seen = hub.sees(b"GET / HTTP/1.1\r\n\r\n".to_vec()).await;
    assert!(matches!(seen, Seen::Failed(ReceiveError::Frame(FrameError::TooLarge(_)))), "{seen:?}");
    let seen = hub.sees(b"\0\0\0\x02\0\xc0".to_vec()).await;
    assert!(matches!(seen, Seen::Failed(ReceiveError::Frame(FrameError::Decode(_)))), "{seen:?}");
    assert!(matches!(hub.sees(whole).await, Seen::Message(message) if message == attach));
    assert!(matches!(hub.seen.recv().await, Some(Seen::End)));
    assert_echo(&good, &message(1)).await;
}

#[tokio::test]
async fn a_claim_costs_no_memory_and_a_trickle_ends() {
    let (_agent, _hub, mut sender, mut receiver) = pipe().await;
    let claim = u32::try_from(MAX_FRAME_BYTES).unwrap().to_be_bytes();
    sender.send_encoded([&claim[..], &[0, 1, 2]].concat()).await.unwrap();
    let error = receiver.next_within::<ToHub>(Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, ReceiveError::TooSlow), "{error:?}");
    assert!(receiver.buffered_bytes() < 1024, "{}", receiver.buffered_bytes());
}

/// Memory that says how much was asked for, and has no more than so much.
struct Scarce {
    asked: Vec<usize>,
    most: usize,
}

impl FrameMemory for Scarce {
    async fn reserve(&mut self, bytes: usize) -> bool {
        self.asked.push(bytes);
        bytes <= self.most
    }
}

#[tokio::test]
async fn room_is_taken_as_a_frame_grows_and_all_of_it_once_much_is_here() {
    let (_agent, _hub, mut sender, mut receiver) = pipe().await;
    let (large, small) = (vec![7; 300_000], vec![7; 10_000]);
    for body in [&large, &small] {
        let claim = u32::try_from(body.len()).unwrap().to_be_bytes();
        sender.send_encoded([&claim[..], body].concat()).await.unwrap();
    }
    let mut memory = Scarce { asked: Vec::new(), most: usize::MAX };
    let frame = receiver.next_frame_within(PATIENCE, &mut memory).await.unwrap().unwrap();
    assert_eq!(frame, large);
    assert!(frame.capacity() <= 300_000, "{}", frame.capacity());
    assert_eq!(memory.asked, [4_096, 8_192, 16_384, 32_768, 65_536, 300_000]);
    memory.asked.clear();
    let frame = receiver.next_frame_within(PATIENCE, &mut memory).await.unwrap().unwrap();
    assert_eq!(frame, small);
    assert_eq!(memory.asked, [4_096, 8_192, 10_000]);
}

#[tokio::test]
async fn a_frame_for_which_there_is_no_memory_is_not_read_and_nobody_is_blamed() {
    let (_agent, _hub, mut sender, mut receiver) = pipe().await;
    let claim = u32::try_from(MAX_FRAME_BYTES).unwrap().to_be_bytes();
    sender.send_encoded([&claim[..], &vec![0; 100_000]].concat()).await.unwrap();
    let mut memory = Scarce { asked: Vec::new(), most: 65_536 };
    let before = receiver.bytes_received();
    let error = receiver.next_frame_within(PATIENCE, &mut memory).await.unwrap_err();
    assert!(matches!(error, ReceiveError::NoMemory), "{error:?}");
    assert_eq!(receiver.bytes_received() - before, 65_536 + 4);
}

#[tokio::test]
async fn a_receiver_can_limit_frames_before_it_trusts() {
    let (_agent, _hub, mut sender, mut receiver) = pipe().await;
    receiver.limit_frames(4096);
    // Compressed it is small enough, what it holds is not.
    sender.send(&message(8192)).await.unwrap();
    let error = receiver.next::<ToHub>().await.unwrap_err();
    assert!(matches!(error, ReceiveError::Frame(FrameError::TooLarge(_))), "{error:?}");
}

/// Breaks if nobody, or everybody, is sent back to prove his address.
#[tokio::test]
async fn the_second_half_of_an_addresss_places_is_for_who_has_proven_it() {
    let credentials = Credentials::generate([7; 32]).unwrap();
    let (cert, key) = (text(&credentials.hub_cert_pem), text(&credentials.hub_key_pem));
    let limits = EndpointLimits { connections_per_address: 2, ..EndpointLimits::default() };
    let tls = HubTls { cert, key, client_ca: None, crl: None };
    let hub = HubEndpoint::bind_within((Ipv4Addr::LOCALHOST, 0).into(), &tls, limits, Box::new(|_, _| {}));
    let hub = hub.unwrap();
    let address = hub.local_addr().unwrap().into();
    let agent_tls = AgentTls { identity: None, ca: Some(text(&credentials.ca_cert_pem)) };
    let mut connected = Vec::new();
    for is_proven in [false, true] {
        let agent = AgentEndpoint::new();
        let accept = async {
            let handshake = hub.accept().await.unwrap();
            assert_eq!(handshake.is_address_proven(), is_proven);
            handshake.complete(PATIENCE).await.unwrap()
        };
        connected.push(tokio::join!(agent.connect(&address, &agent_tls, PATIENCE), accept));
    }
    let third = AgentEndpoint::new();
    let refused = tokio::select! {
        outcome = third.connect(&address, &agent_tls, PATIENCE) => outcome.unwrap_err(),
        _ = hub.accept() => panic!("there is no place"),
    };
    assert!(matches!(refused, ConnectError::Lost { lost: ConnectionLost::Refused, .. }), "{refused:?}");
}
