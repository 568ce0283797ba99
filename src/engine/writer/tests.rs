use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::group::{Source, run_group};
use super::job::{Lane, Read, Work, Write};
use super::turns::{MAX_GROUP, Turns};
use super::*;
use crate::engine::hub_time::KEEP_TIME_MS;
use crate::model::{Digest, Hlc};
use crate::protocol::check::CheckRequest;
use crate::protocol::hub_request::{AttachRequest, PullRequest, PushRequest, RegisterRequest};
use crate::protocol::message::{Ack, Attached, BatchBody, Done, Rows, Standing};
use crate::storage::declaring::Declaring;
use crate::storage::hub_store::{Checked, Snapshot, Upkeep, Welcomed};
use crate::storage::revocation::{Revocation, Revoked};

/// Writes down what it is asked. Batch 13 fails, and commits do as long as `disk_full` says so.
#[derive(Clone, Default)]
struct Notebook(Arc<Mutex<Notes>>);

#[derive(Default)]
struct Notes {
    lines: Vec<String>,
    disk_full: bool,
    pending: u64,
    stats: StoreStats,
    kept_time_ms: i64,
}

impl Notebook {
    fn with<T>(&self, work: impl FnOnce(&mut Notes) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, line: impl Into<String>) {
        self.with(|notes| notes.lines.push(line.into()));
    }
}

impl HubStore for Notebook {
    fn incarnation(&self) -> Incarnation {
        ReplicaId([1; 16])
    }

    fn stats(&self) -> StoreStats {
        self.with(|notes| notes.stats)
    }

    fn attach(&mut self, _: &Caller, _: &AttachRequest, _: i64) -> Answer<Attached> {
        self.note("attach");
        Ok(Attached { epoch: 1, last: None, past: vec![], standing: Standing::Current, rejected: vec![] })
    }

    /// In as many pieces as there are tables.
    fn declare(&mut self, caller: &Caller, request: &RegisterRequest, state: &mut Declaring) -> Answer<bool> {
        state.pieces += 1;
        self.note(format!("piece {} of {}", state.pieces, caller.tenant));
        self.with(|notes| notes.pending += 1);
        Ok(state.pieces < request.schema.len())
    }

    fn push(&mut self, _: &Caller, request: PushRequest, _: i64) -> Answer<Ack> {
        self.note(format!("push {}", request.n));
        if request.n == 13 {
            return Err(StoreError::Failed("thirteen".into()));
        }
        self.with(|notes| notes.pending += 1);
        Ok(Ack { n: request.n, conflicts: 0, rejected: vec![], notices: vec![], contests: vec![] })
    }

    fn revoke(&mut self, _: &Revocation) -> Answer<()> {
        self.note("revoke");
        Ok(())
    }

    fn reinstate(&mut self, _: &Revoked) -> Answer<bool> {
        self.note("reinstate");
        Ok(true)
    }

    fn revocations(&mut self, _: i64) -> Answer<Vec<Revocation>> {
        self.note("revocations");
        Ok(vec![])
    }

    fn end_session(&mut self, _: &Caller, counter: u64) -> Answer<()> {
        self.note(format!("end {counter}"));
        Ok(())
    }

    fn retire(&mut self, _: &Caller, replicas: &[(ReplicaId, u64)]) -> Answer<()> {
        self.note(format!("retire {}", replicas.len()));
        Ok(())
    }

    fn upkeep(&mut self, _: &Upkeep<'_>) -> Answer<bool> {
        self.note("upkeep");
        Ok(false)
    }

    fn kept_time_ms(&self) -> i64 {
        self.with(|notes| notes.kept_time_ms)
    }

    fn keep_time(&mut self, now_ms: i64) -> Answer<()> {
        self.note("keep time");
        self.with(|notes| notes.kept_time_ms = now_ms);
        Ok(())
    }

    fn commit(&mut self) -> Answer<()> {
        self.note("commit");
        self.with(|notes| {
            let pending = std::mem::take(&mut notes.pending);
            if notes.disk_full && pending > 0 {
                return Err(StoreError::Failed("disk full".into()));
            }
            notes.stats.rows += pending;
            Ok(())
        })
    }

    fn welcome(&mut self, _: &Caller) -> Answer<Welcomed> {
        self.note("welcome");
        Ok(Welcomed::default())
    }

    fn check(&mut self, _: &Caller, _: &CheckRequest) -> Result<Checked, StoreError> {
        Ok(Checked::default())
    }

    fn snapshot(&mut self, _: &Caller, _: &PullRequest, _: i64) -> Answer<Snapshot> {
        self.note("snapshot");
        let done = Done {
            cursor: 0,
            highest: Hlc::ZERO,
            hub_now_ms: 0,
            clock: vec![],
            retired: None,
            horizon: 0,
            refused: vec![],
            notices: vec![],
        };
        Ok(Snapshot { tables: vec![], first: Rows::default(), rest: None, done })
    }
}

fn attach() -> AttachRequest {
    AttachRequest {
        replica: ReplicaId([0; 16]),
        cursor: 0,
        is_new: true,
        token_until_ms: i64::MAX,
        incarnation: None,
    }
}

fn push(n: u64) -> PushRequest {
    let (replica, body) = (ReplicaId([0; 16]), BatchBody::default());
    PushRequest { replica, epoch: 1, counter: 0, n, previous: Digest::ZERO, digest: Digest::ZERO, body }
}

fn pull() -> PullRequest {
    PullRequest { replica: ReplicaId([0; 16]), epoch: 1, cursor: 0, resume: 0, refresh: vec![] }
}

fn caller() -> Arc<Caller> {
    Arc::new(Caller { tenant: "acme".into(), agent: "a".into() })
}

fn write(write: Write) -> Job {
    Job(Task::Asked(caller(), Work::Write(write)))
}

/// Runs pushes as one group, followed by a pull that was asked first; returns the answers.
fn run_pushes(notebook: &Notebook, numbers: &[u64]) -> Vec<Answer<Ack>> {
    let (reply, mut pulled) = oneshot::channel();
    let mut group = vec![Job(Task::Asked(caller(), Work::Read(Read::Pull(pull(), reply))))];
    let mut answers = Vec::new();
    for n in numbers {
        let (reply, answer) = oneshot::channel();
        group.push(write(Write::Push(push(*n), reply)));
        answers.push(answer);
    }
    run_group(&mut notebook.clone(), &mut group, 0);
    assert!(matches!(pulled.try_recv(), Ok(Reply::Pulled(Ok(_)))));
    let answer_of = |mut answer: oneshot::Receiver<Reply>| match answer.try_recv() {
        Ok(Reply::Pushed(answer)) => answer,
        _ => panic!("a push without its answer"),
    };
    answers.into_iter().map(answer_of).collect()
}

#[test]
fn a_group_shares_one_commit_and_reads_follow_it() {
    let notebook = Notebook::default();
    let answers = run_pushes(&notebook, &[1, 2, 3]);
    assert!(answers.iter().all(Result::is_ok));
    let expected = ["push 1", "push 2", "push 3", "commit", "snapshot"];
    notebook.with(|notes| assert_eq!(notes.lines, expected));
}

#[test]
fn the_hubs_time_is_kept_before_anybody_hears_of_it_but_not_each_time() {
    let notebook = Notebook::default();
    let lines_at = |now_ms| {
        notebook.with(|notes| notes.lines.clear());
        let (job, _answer) = Job::welcome(&caller());
        run_group(&mut notebook.clone(), &mut vec![job], now_ms);
        notebook.with(|notes| notes.lines.clone())
    };
    assert_eq!(lines_at(1_000_000), ["keep time", "commit", "welcome"]);
    assert_eq!(lines_at(1_000_000 + KEEP_TIME_MS - 1), ["commit", "welcome"]);
    assert_eq!(lines_at(1_000_000 + KEEP_TIME_MS), ["keep time", "commit", "welcome"]);
}

#[test]
fn where_no_agent_is_connected_the_time_is_not_kept() {
    let notebook = Notebook::default();
    let upkeep = |connected: HashSet<_>| {
        let job = UpkeepJob { wall_ms: 0, agent_ttl_ms: 0, connected };
        run_group(&mut notebook.clone(), &mut vec![Job::upkeep(job).0], 1_000_000);
        notebook.kept_time_ms()
    };
    assert_eq!(upkeep(HashSet::new()), 0);
    assert_eq!(upkeep(HashSet::from([("acme".to_owned(), ReplicaId([1; 16]))])), 1_000_000);
}

#[test]
fn a_failing_job_does_not_poison_its_group() {
    let notebook = Notebook::default();
    let answers = run_pushes(&notebook, &[1, 13, 2]);
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(notebook.stats().rows, 2);
}

#[test]
fn nothing_is_acknowledged_that_was_not_committed_and_the_hub_goes_on() {
    let notebook = Notebook::default();
    notebook.with(|notes| notes.disk_full = true);
    let answers = run_pushes(&notebook, &[1, 2]);
    assert!(answers.iter().all(|answer| *answer == Err(StoreError::Failed("disk full".into()))));
    notebook.with(|notes| notes.disk_full = false);
    assert!(run_pushes(&notebook, &[1])[0].is_ok());
}

#[test]
fn what_was_asked_is_done_before_the_thread_ends() {
    let notebook = Notebook::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (writer, thread) = Writer::start(Box::new(notebook.clone())).unwrap();
    let answers = runtime.block_on(async {
        let caller = caller();
        let greeting = writer.welcome(&caller).await.unwrap();
        assert!(greeting.counter == 0 && greeting.hub_now_ms <= wall_now_ms());
        writer.end_session(&caller, 5).await;
        let attached = writer.ask(&caller, StoreRequest::Attach(attach())).await.await;
        assert!(matches!(attached, Ok(Reply::Attached(Ok(_)))));
        vec![writer.ask(&caller, StoreRequest::Push(push(1))).await]
    });
    let counts = writer.counts();
    drop(writer);
    thread.join().unwrap();
    for mut answer in answers {
        assert!(matches!(answer.try_recv(), Ok(Reply::Pushed(Ok(_)))));
    }
    assert_eq!(counts.get().rows, 1);
}

fn caller_of(tenant: &str) -> Arc<Caller> {
    Arc::new(Caller { tenant: tenant.into(), agent: "a".into() })
}

/// Breaks if the jobs of a tenant that floods come before those of one that asks for little, or if groups grow without
/// regard to what they cost.
#[test]
fn a_tenant_that_floods_is_in_each_group_no_more_than_its_share() {
    let (jobs, mut waiting) = mpsc::channel(MAX_WAITING);
    let push_job = |tenant, n, rows: usize| {
        let mut request = push(n);
        let write = crate::model::RowChange {
            table: 0,
            id: crate::model::RowId([1; 16]),
            number: None,
            is_new: true,
            writes: vec![],
        };
        request.body.rows = vec![write; rows];
        Job::ask(&caller_of(tenant), StoreRequest::Push(request)).0
    };
    let counts = Arc::default();
    let send =
        |job| assert!(jobs.try_send(Waiting { job, share: None, _queued: Queued::enter(&counts) }).is_ok());
    for n in 0..200 {
        send(push_job("flood", n, 500));
    }
    send(push_job("good", 1_000, 1));
    send(Job::upkeep(UpkeepJob { wall_ms: 0, agent_ttl_ms: 0, connected: HashSet::new() }).0);
    drop(jobs);
    let (mut turns, mut groups) = (Turns::default(), Vec::new());
    while turns.gather(&mut waiting) {
        let mut group = turns.group();
        groups.push(std::iter::from_fn(|| group.next()).map(|(job, _)| job.lane()).collect::<Vec<_>>());
    }
    let first = &groups[0];
    let is_soon = |lane| first[..3].contains(&lane);
    assert!(is_soon(Lane::Tenant("good".into())) && is_soon(Lane::Upkeep), "{first:?}");
    assert_eq!(first.len(), 2 + 9, "500 rows each, and no more once it is full");
    assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), 202, "everybody comes to his turn");
}

/// Breaks if a tenant pays only for the rows of its jobs, or if a group goes on however long its jobs take.
#[test]
fn who_keeps_the_thread_longer_than_its_rows_would_pays_for_the_time() {
    let (jobs, mut waiting) = mpsc::channel(MAX_WAITING);
    let counts = Arc::default();
    let send = |job| {
        assert!(jobs.try_send(Waiting { job, share: None, _queued: Queued::enter(&counts) }).is_ok());
    };
    let push_of = |tenant| Job::ask(&caller_of(tenant), StoreRequest::Push(push(1))).0;
    for _ in 0..10 {
        send(push_of("slow"));
    }
    for _ in 0..100 {
        send(push_of("good"));
    }
    for _ in 0..3 {
        send(Job::upkeep(UpkeepJob { wall_ms: 0, agent_ttl_ms: 0, connected: HashSet::new() }).0);
        let list = operator::List::Nothing(oneshot::channel().0);
        send(Job(Task::Revocation(operator::RevocationJob::List(list))));
    }
    drop(jobs);
    let (mut turns, mut groups, good) = (Turns::default(), Vec::new(), Lane::Tenant("good".into()));
    while turns.gather(&mut waiting) {
        let (mut group, mut lanes) = (turns.group(), Vec::new());
        while let Some((job, bill)) = group.next() {
            group.took(bill, Duration::from_millis(if job.lane() == good { 1 } else { 100 }));
            lanes.push(job.lane());
        }
        groups.push(lanes);
    }
    let long_ones = |lanes: &[Lane]| lanes.iter().filter(|lane| **lane != good).count();
    assert!(groups.iter().all(|lanes| long_ones(lanes) <= 3), "{groups:?}");
    let order = groups.concat();
    let place = |lane: &Lane, nth: usize| {
        let mut places = order.iter().enumerate().filter(|(_, other)| *other == lane);
        places.nth(nth).map(|(at, _)| at).unwrap()
    };
    assert!(place(&Lane::Operator, 2) < 12, "{order:?}");
    assert!(place(&Lane::Tenant("slow".into()), 1) > 90, "{order:?}");
    assert!(place(&Lane::Upkeep, 1) > 90, "{order:?}");
}

/// Breaks if a declaration that is done in pieces is done before others have their turn, or is answered before its last piece
/// is durable.
#[test]
fn between_the_pieces_of_a_declaration_others_have_their_turn() {
    let (jobs, mut waiting) = mpsc::channel(MAX_WAITING);
    let counts = Arc::default();
    let send = |job| {
        assert!(jobs.try_send(Waiting { job, share: None, _queued: Queued::enter(&counts) }).is_ok());
    };
    let register = |tables: usize| {
        let schema = vec![
            crate::model::TableSchema {
                name: "t".into(),
                key: crate::model::KeyKind::Natural,
                columns: vec![],
                ddl: String::new(),
                indexes: vec![],
                agreed: crate::model::Agreement::default(),
            };
            tables
        ];
        let request =
            RegisterRequest { replica: ReplicaId([0; 16]), epoch: 1, schema, may_define: true, cursor: 0 };
        Job::ask(&caller_of("large"), StoreRequest::Register(request))
    };
    let notebook = Notebook::default();
    let (job, mut declared) = register(4);
    send(job);
    let (mut turns, mut n) = (Turns::default(), 0);
    while turns.gather(&mut waiting) {
        let is_last =
            notebook.with(|notes| notes.lines.iter().filter(|it| it.starts_with("piece")).count()) == 3;
        run_and_count(&mut notebook.clone(), turns.group(), 0, &mut |_, _, _| {});
        if is_last {
            break;
        }
        assert!(declared.try_recv().is_err(), "there is more to do");
        n += 1;
        send(Job::ask(&caller_of("other"), StoreRequest::Push(push(n))).0);
    }
    assert!(matches!(declared.try_recv(), Ok(Reply::Registered(Ok(())))));
    let pieces = |n: u64| format!("piece {n} of large");
    let expected: Vec<String> = [pieces(1), "commit".into()]
        .into_iter()
        .chain((2..=4).flat_map(|n| [pieces(n), format!("push {}", n - 1), "commit".into()]))
        .collect();
    notebook.with(|notes| {
        let mut lines = std::mem::take(&mut notes.lines);
        lines.retain(|line| line != "keep time");
        assert_eq!(lines, expected);
        notes.disk_full = true;
    });
    assert_eq!(counts.queued.load(Ordering::Relaxed), 0);

    // Of a piece that is not durable there is no next one.
    let (job, mut declared) = register(4);
    run_group(&mut notebook.clone(), &mut vec![job], 0);
    assert!(matches!(declared.try_recv(), Ok(Reply::Registered(Err(_)))));
    assert_eq!(notebook.with(|notes| notes.lines.iter().filter(|it| it.starts_with("piece")).count()), 1);
}

/// Breaks if whoever fills the queue keeps others from asking.
#[test]
fn a_tenant_waits_for_its_own_share_and_no_other_does() {
    fn is_ready<T>(future: impl Future<Output = T>) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(future).poll(&mut context).is_ready()
    }
    let notebook = Notebook::default();
    let (writer, thread) = Writer::start(Box::new(notebook.clone())).unwrap();
    notebook.with(|_| {
        // The thread stands still at the first job of a group, while the next one gathers.
        let flood = caller_of("flood");
        let asked =
            (0..2_000).take_while(|n| is_ready(writer.ask(&flood, StoreRequest::Push(push(*n))))).count();
        assert!((shares::MAX_WAITING_OF_TENANT..=shares::MAX_WAITING_OF_TENANT + MAX_GROUP).contains(&asked));
        assert!(is_ready(writer.ask(&caller_of("good"), StoreRequest::Push(push(1)))));
    });
    drop(writer);
    thread.join().unwrap();
}
