//! What an operator sees and removes.

use std::collections::HashSet;
use std::fs;

use super::*;
use crate::storage::hub_operator::{Obeyed, OperatorStore, Order, Removal, Removed};

/// Tables that hold something of a tenant, by its number.
const TABLES: [&str; 16] = [
    "row_state",
    "claim",
    "former_claim",
    "claim_wait",
    "alike",
    "link",
    "table_schema",
    "table_rules",
    "definition",
    "declaration",
    "replica",
    "agent",
    "retired",
    "incarnation",
    "dropped_table",
    "dropped_definition",
];

fn order(store: &mut SqliteHubStore, tenant: &str, order: &Order) -> Obeyed {
    let obeyed = store.obey(tenant, order, NOW_MS).unwrap();
    store.commit().unwrap();
    obeyed
}

fn refused_order(store: &mut SqliteHubStore, tenant: &str, order: &Order) -> String {
    let (_, message) = refusal(store.obey(tenant, order, NOW_MS));
    store.commit().unwrap();
    message
}

/// Removes what is left, and counts the pieces.
fn remove(store: &mut SqliteHubStore, removal: Removal) -> (Removed, usize) {
    let mut pieces = 0;
    loop {
        let removed = store.remove_some(removal).unwrap();
        store.commit().unwrap();
        match removed {
            Some(removed) => return (removed, pieces),
            None => pieces += 1,
        }
    }
}

fn drop_table(store: &mut SqliteHubStore, tenant: &str, table: &str) -> Removed {
    let removal = order(store, tenant, &Order::DropTable(table.into())).removal.unwrap();
    remove(store, removal).0
}

fn attach_again(store: &mut SqliteHubStore, who: &mut Pusher) {
    let request = AttachRequest { is_new: false, cursor: who.cursor, ..attach_request(who.replica) };
    who.epoch = store.attach(&who.caller, &request, NOW_MS).unwrap().epoch;
    store.commit().unwrap();
}

fn refused_tables(store: &mut SqliteHubStore, who: &Pusher) -> Vec<(String, String)> {
    store.snapshot(&who.caller, &who.pull_request(&[]), NOW_MS).unwrap().done.refused
}

fn count(store: &SqliteHubStore, table: &str) -> i64 {
    store.conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

fn notes() -> TableSchema {
    schema("notes", KeyKind::Natural, &["title", "body"])
}

/// Breaks if a table's rows are told while they go, if anything of the table stays, or if another table suffers.
#[test]
fn a_table_goes_at_once_and_its_rows_in_pieces() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    let parent = schema("tasks", KeyKind::Natural, &["title"]);
    let child = TableSchema {
        ddl: "CREATE TABLE steps(title TEXT PRIMARY KEY, task REFERENCES tasks(title))".into(),
        ..schema("steps", KeyKind::Natural, &["title", "task"])
    };
    alice.register(&mut store, vec![notes(), parent, child]);
    for row in 0..200 {
        alice.set(&mut store, 0, row, &[("title", text(&format!("n{row}"))), ("body", text("b"))]);
    }
    let body = alice.body("tasks", 0, 7, &[("title", text("t"))]);
    alice.push(&mut store, body);
    let body = alice.body("steps", 0, 8, &[("title", text("s")), ("task", text("t"))]);
    alice.push(&mut store, body);
    assert_eq!(store.stats().rows, 202);
    assert_eq!(order(&mut store, "acme", &Order::DropTable("TASKS".into())).referenced_by, ["steps"]);

    let removal = order(&mut store, "acme", &Order::DropTable("notes".into())).removal.unwrap();
    let pulled = bob.pull(&mut store, &[]);
    assert_eq!(pulled.updates.len(), 1, "only the step");
    assert_eq!(pulled.tables.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["steps"]);
    assert!(count(&store, "row_state") > 200, "they are still there");
    let message = refused_order(&mut store, "acme", &Order::DropTable("notes".into()));
    assert!(message.contains("removed already"), "{message}");

    let upkeep =
        Upkeep { now_ms: NOW_MS, wall_ms: NOW_MS, agent_ttl_ms: 1_000_000, connected: &HashSet::new() };
    while store.upkeep(&upkeep).unwrap() {
        store.commit().unwrap();
    }
    store.commit().unwrap();
    let (removed, pieces) = remove(&mut store, removal);
    assert!(removed.rows == 200 && removed.bytes > 200 * weight::ROW_OVERHEAD && pieces == 0, "{removed:?}");
    assert_eq!(store.stats().rows, 1);
    assert_weighed(&store);
    for (table, left) in [("row_state", 1), ("table_schema", 1), ("removal", 0), ("claim", 1)] {
        assert_eq!(count(&store, table), left, "{table}");
    }
    attach_again(&mut store, &mut alice);
    let body = alice.body("steps", 5, 9, &[("title", text("s2")), ("task", text("t"))]);
    assert_eq!(alice.push(&mut store, body).rejected, []);
}

/// Breaks if a removed table comes back with whoever has it as it was, or keeps whoever has another one of that name away.
#[test]
fn a_name_is_free_for_another_table_and_readmitted_for_the_former() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    alice.set(&mut store, 0, 1, &[("title", text("a"))]);
    let own = schema("notes", KeyKind::Number, &["body"]);
    alice.pull(&mut store, &[]);
    bob.pull(&mut store, &[]);
    bob.register(&mut store, vec![own.clone()]);
    assert!(refused_tables(&mut store, &bob)[0].1.contains("INTEGER PRIMARY KEY"));

    drop_table(&mut store, "acme", "notes");
    let stale = store.register(
        &bob.caller,
        &RegisterRequest { replica: BOB, epoch: bob.epoch, cursor: 0, schema: vec![], may_define: true },
    );
    assert_eq!(refusal(stale).0, Refusal::Stale, "who is attached attaches again");
    for who in [&mut alice, &mut bob] {
        attach_again(&mut store, who);
    }
    // Whoever has not heard of it is told first, whatever it has.
    alice.register(&mut store, vec![notes()]);
    bob.register(&mut store, vec![own.clone()]);
    for who in [&mut alice, &mut bob] {
        let refused = refused_tables(&mut store, who);
        assert!(refused[0].1.contains("operator has removed it"), "{refused:?}");
        let told = who.pull(&mut store, &[]).tables;
        assert!(told.len() == 1 && told[0].is_removed() && told[0].name == "notes", "{told:?}");
    }
    alice.register(&mut store, vec![notes()]);
    bob.register(&mut store, vec![own]);
    assert!(refused_tables(&mut store, &alice)[0].1.contains("server.readmit"));
    assert_eq!(refused_tables(&mut store, &bob), []);
    assert_eq!(alice.set(&mut store, 9, 1, &[("title", text("a"))]).rejected.len(), 1);

    // A newcomer with the table as it was is no exception; with Bob's, it is.
    let eve = Pusher::attach(&mut store, "acme", "eve", ReplicaId([0xee; 16]));
    eve.register(&mut store, vec![notes()]);
    assert!(refused_tables(&mut store, &eve)[0].1.contains("server.readmit"));

    drop_table(&mut store, "acme", "notes");
    order(&mut store, "acme", &Order::Readmit("notes".into(), None));
    attach_again(&mut store, &mut alice);
    alice.register(&mut store, vec![notes()]);
    alice.pull(&mut store, &[]);
    alice.register(&mut store, vec![notes()]);
    assert_eq!(refused_tables(&mut store, &alice), []);
    assert_eq!(alice.set(&mut store, 9, 1, &[("title", text("a"))]).rejected, []);
}

/// Breaks if a removal that a crash has interrupted does not go on, or shows what is left.
#[test]
fn a_removal_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let open = |n: u8| SqliteHubStore::open(path.to_str().unwrap(), ReplicaId([n; 16])).unwrap();
    let mut store = open(1);
    let (mut alice, _) = two_agents(&mut store);
    let mut globex = Pusher::attach(&mut store, "globex", "g", ALICE);
    globex.register(&mut store, vec![notes()]);
    for row in 0..3 {
        alice.set(&mut store, 0, row, &[("title", text(&format!("n{row}")))]);
        globex.set(&mut store, 0, row, &[("title", text(&format!("n{row}")))]);
    }
    order(&mut store, "acme", &Order::Erase);
    order(&mut store, "globex", &Order::DropTable("notes".into()));
    drop(store);

    let mut store = open(2);
    assert_eq!(store.stats(), StoreStats { tenants: 1, rows: 3 });
    let upkeep =
        Upkeep { now_ms: NOW_MS, wall_ms: NOW_MS, agent_ttl_ms: 1_000_000, connected: &HashSet::new() };
    while store.upkeep(&upkeep).unwrap() {
        store.commit().unwrap();
    }
    store.commit().unwrap();
    assert_eq!(store.stats(), StoreStats { tenants: 1, rows: 0 });
    assert_eq!((count(&store, "removal"), count(&store, "row_state")), (0, 0));
    assert_weighed(&store);
}

/// Breaks if a definition that was removed stands on, or again, while somebody declares it.
#[test]
fn a_definition_stands_no_more_until_it_is_readmitted() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    let unique = "CREATE UNIQUE INDEX by_body ON notes(body)".to_owned();
    let declared = TableSchema { indexes: vec![unique.clone()], ..notes() };
    alice.register(&mut store, vec![declared.clone()]);
    alice.set(&mut store, 0, 1, &[("title", text("a")), ("body", text("same"))]);
    assert_eq!(bob.pull(&mut store, &[]).tables[0].indexes, std::slice::from_ref(&unique));

    let message =
        refused_order(&mut store, "acme", &Order::DropDefinition("notes".into(), "by_boddy".into()));
    assert!(message.contains("did you mean \"by_body\"?"), "{message}");
    let obeyed = order(&mut store, "acme", &Order::DropDefinition("NOTES".into(), "BY_BODY".into()));
    assert_eq!(obeyed.texts, std::slice::from_ref(&unique));
    let pulled = store.snapshot(&bob.caller, &bob.pull_request(&[]), NOW_MS).unwrap();
    assert_eq!(pulled.tables[0].indexes, Vec::<String>::new());
    assert!(pulled.done.notices[0].contains("operator has removed it"), "{:?}", pulled.done.notices);
    // Two rows that the index would have taken for one are two.
    alice.register(&mut store, vec![declared.clone(), schema("more", KeyKind::Natural, &["title"])]);
    bob.register(&mut store, vec![declared]);
    bob.set(&mut store, 5, 2, &[("title", text("b")), ("body", text("same"))]);
    assert_eq!(store.stats().rows, 2);
    let described = store.describe("acme").unwrap();
    let index = described.tables[0].definitions.iter().find(|it| it.is_index).unwrap();
    assert!(index.is_dropped && !index.is_standing && index.replicas == 2, "{index:?}");
    assert_eq!(index.agent.as_deref(), Some("alice"));

    bob.pull(&mut store, &[]);
    let body = bob.body("notes", 6, 2, &[("body", text("other"))]);
    bob.push(&mut store, body);
    order(&mut store, "acme", &Order::Readmit("notes".into(), Some("by_body".into())));
    assert_eq!(alice.pull(&mut store, &[]).tables[0].indexes, [unique]);
}

/// Breaks if a table is left without any text, or if a text that was removed goes on standing beside another one.
#[test]
fn a_text_gives_way_to_another_one_and_to_nothing_else() {
    let mut store = store();
    let (alice, bob) = two_agents(&mut store);
    let order_ = Order::DropDefinition("notes".into(), "notes".into());
    let message = refused_order(&mut store, "acme", &order_);
    assert!(message.contains("no other text of table notes is declared"), "{message}");
    let laxer = TableSchema { ddl: "CREATE TABLE notes (title PRIMARY KEY, body)".into(), ..notes() };
    bob.register(&mut store, vec![laxer.clone()]);
    order(&mut store, "acme", &order_);
    let mut eve = Pusher::attach(&mut store, "acme", "eve", ReplicaId([0xee; 16]));
    assert_eq!(eve.pull(&mut store, &[]).tables[0].ddl, laxer.ddl);
    alice.register(&mut store, vec![notes(), schema("more", KeyKind::Natural, &["title"])]);
    assert_eq!(store.describe("acme").unwrap().tables[0].definitions.len(), 2);
    assert_eq!(
        Pusher::attach(&mut store, "acme", "z", ReplicaId([0xed; 16])).pull(&mut store, &[]).tables[0].ddl,
        laxer.ddl
    );
}

/// Breaks if anything of a tenant stays, in tables or in bytes of the file, or if another tenant loses any.
#[test]
fn an_erased_tenant_leaves_nothing_in_the_file_and_comes_back_as_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let mut store = SqliteHubStore::open(path.to_str().unwrap(), ReplicaId([1; 16])).unwrap();
    let (mut alice, _) = two_agents(&mut store);
    let mut globex = Pusher::attach(&mut store, "globex", "g", ALICE);
    let unique = "CREATE UNIQUE INDEX by_body ON notes(body)".to_owned();
    let declared = TableSchema { indexes: vec![unique], ..notes() };
    alice.register(&mut store, vec![declared.clone()]);
    globex.register(&mut store, vec![declared.clone()]);
    for row in 0..100 {
        // Some are too large for a page, and each is written again, so that what it was is free.
        for part in ["first", "second"] {
            let large = format!("SECRET-{part}-{row}-").repeat(if row % 3 == 0 { 800 } else { 3 });
            alice.set(
                &mut store,
                0,
                row,
                &[("title", text(&format!("SECRET-{row}"))), ("body", text(&large))],
            );
        }
        globex.set(
            &mut store,
            0,
            row,
            &[("title", text(&format!("g{row}"))), ("body", text(&format!("{row}")))],
        );
    }
    let secret = |path: &std::path::Path| {
        let bytes = fs::read(path).unwrap();
        bytes.windows(6).filter(|it| *it == b"SECRET").count()
    };
    let log = directory.path().join("hub.db-wal");
    assert!(store.empty_log().unwrap());
    let before = secret(&path);

    let removal = order(&mut store, "acme", &Order::Erase).removal.unwrap();
    assert_eq!(store.stats(), StoreStats { tenants: 1, rows: 100 });
    let again = Pusher::attach(&mut store, "acme", "alice", BOB);
    assert_eq!(again.epoch, 1, "of a tenant that is new");
    let number: i64 =
        store.conn.query_row("SELECT id FROM tenant WHERE name = 'acme'", [], |row| row.get(0)).unwrap();
    assert!(number > removal.tenant);
    assert_eq!(
        refusal(store.push(&alice.caller, alice.request(BatchBody::default()), NOW_MS)).0,
        Refusal::Stale
    );
    let (removed, pieces) = remove(&mut store, removal);
    assert!(removed.rows == 100 && pieces > 1, "{removed:?} in {pieces} pieces");
    for table in TABLES {
        let sql = format!("SELECT count(*) FROM {table} WHERE tenant = ?1");
        let left: i64 = store.conn.query_row(&sql, [removal.tenant], |row| row.get(0)).unwrap();
        assert_eq!(left, 0, "{table}");
    }
    let mut compacted = 0;
    loop {
        let piece = store.compact_some().unwrap();
        store.commit().unwrap();
        compacted += piece.bytes;
        assert!(piece.can_shrink && piece.bytes <= 256 * 4_096);
        if piece.free == 0 {
            break;
        }
    }
    assert!(compacted > 100_000, "{compacted}");
    assert!(store.empty_log().unwrap());
    assert_eq!(fs::metadata(&log).unwrap().len(), 0);
    // SQLite leaves copies in parts of pages that it does not use when it moves rows between them.
    assert!(before > 1_000 && secret(&path) < before / 20, "{before}, and {} are left", secret(&path));
    assert_eq!(Pusher::attach(&mut store, "globex", "h", BOB).pull(&mut store, &[]).updates.len(), 100);
    assert_weighed(&store);
}

/// Breaks if an agent that was welcomed before an order keeps positions under a name that they are not of.
#[test]
fn positions_after_an_order_are_of_another_incarnation() {
    let mut store = store();
    let (mut alice, _) = two_agents(&mut store);
    alice.set(&mut store, 0, 1, &[("title", text("a"))]);
    let before = store.incarnation();
    assert_eq!(store.welcome(&alice.caller).unwrap().incarnation, None);
    drop_table(&mut store, "acme", "notes");
    let now = store.welcome(&alice.caller).unwrap().incarnation.unwrap();
    assert_ne!(now, before);
    assert_eq!(store.welcome(&caller("globex", "g")).unwrap().incarnation, None);
    let attach = |store: &mut SqliteHubStore, incarnation| {
        let request =
            AttachRequest { is_new: false, incarnation: Some(incarnation), ..attach_request(ALICE) };
        store.attach(&alice.caller, &request, NOW_MS)
    };
    assert_eq!(refusal(attach(&mut store, before)).0, Refusal::Stopping, "it connects again");
    let past = attach(&mut store, now).unwrap().past;
    assert!(past.len() == 1 && past[0].0 == before && past[0].1 >= 3, "{past:?}");
    // An erased tenant has no past.
    order(&mut store, "acme", &Order::Erase);
    let erased = store.welcome(&alice.caller).unwrap().incarnation.unwrap();
    assert!(erased != now && erased != before);
    let attached = attach(&mut store, erased).unwrap();
    assert!(attached.past.is_empty() && attached.epoch == 0, "{attached:?}");
}

#[test]
fn what_there_is_is_told() {
    let mut store = store();
    let (mut alice, _) = two_agents(&mut store);
    Pusher::attach(&mut store, "globex", "g", ALICE);
    alice.set(&mut store, 7, 1, &[("title", text("a")), ("body", text("b"))]);
    let all = store.tenants(None, 1).unwrap();
    assert_eq!((all.len(), all[0].name.as_str(), all[0].rows), (1, "acme", 1));
    assert_eq!((all[0].agents, all[0].replicas), (2, 2));
    assert_eq!(store.tenants(Some("acme"), 9).unwrap()[0].name, "globex");

    let described = store.describe("acme").unwrap();
    assert_eq!(described.summary, all[0]);
    assert_eq!(described.highest, Hlc::from_ms(NOW_MS + 7));
    let [notes] = &described.tables[..] else { panic!("{described:?}") };
    assert_eq!(
        (notes.name.as_str(), &notes.columns[..]),
        ("notes", &["title".to_owned(), "body".into()][..])
    );
    assert!(notes.definitions[0].is_standing && !notes.definitions[0].is_index);
    let counted = store.count_rows("acme", notes.id, None).unwrap();
    assert_eq!((counted.rows, counted.bytes, counted.next), (1, all[0].bytes, None));
    assert_eq!(described.agents.iter().map(|it| it.seen_ms).collect::<Vec<_>>(), [NOW_MS, NOW_MS]);
    // Heard of, and not written down yet.
    store.snapshot(&alice.caller, &alice.pull_request(&[]), NOW_MS + 50).unwrap();
    assert_eq!(store.describe("acme").unwrap().agents[0].seen_ms, NOW_MS + 50);

    let (_, message) = refusal(store.describe("Acmee"));
    assert!(message.contains("knows no tenant \"Acmee\": did you mean \"acme\"?"), "{message}");
    let message = refused_order(&mut store, "acme", &Order::DropTable("zzz".into()));
    assert!(message.contains("there are \"notes\""), "{message}");
    let message = refused_order(&mut store, "acme", &Order::Readmit("notes".into(), None));
    assert!(message.contains("no table of this tenant was removed"), "{message}");
}
