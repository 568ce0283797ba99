//! Has the model look at what a hub does.

use std::cell::RefCell;
use std::rc::Rc;

use federation_hub::model::ReplicaId;
use federation_hub::protocol::hub_request::{AttachRequest, Caller, PullRequest};
use federation_hub::storage::hub_store::HubStore;

use crate::checks::Failure;
use crate::hub::{Heard, Hub};
use crate::model::{Accepted, Model};

/// Who asks the hub for everything, again and again. It sends nothing, and is told what somebody new would be.
const REPLICA: ReplicaId = ReplicaId([0xA0; 16]);

/// Listens to a hub, and compares what it tells with the model.
pub struct Auditor {
    caller: Caller,
    epoch: u64,
    cursor: u64,
    notes: Rc<RefCell<Notes>>,
}

/// What was heard.
#[derive(Default)]
struct Notes {
    model: Model,
    tables: Vec<String>,
    /// The first batch whose conflicts were not counted right.
    miscount: Option<String>,
    /// Whether a batch came since the last check.
    is_news: bool,
}

impl Auditor {
    /// Begins to listen.
    pub fn attend(hub: &mut Hub) -> Self {
        let caller = Caller { tenant: "acme".into(), agent: "auditor".into() };
        let request = AttachRequest {
            replica: REPLICA,
            cursor: 0,
            is_new: true,
            token_until_ms: i64::MAX,
            incarnation: None,
        };
        let epoch = hub.store.attach(&caller, &request, hub.clock.now_ms()).unwrap().epoch;
        hub.store.commit().unwrap();
        let notes = Rc::new(RefCell::new(Notes::default()));
        let shared = notes.clone();
        hub.listener = Some(Box::new(move |caller, heard| shared.borrow_mut().take(caller, &heard)));
        Self { caller, epoch, cursor: 0, notes }
    }

    /// Compares what the hub tells now, and what it has counted up to now.
    pub fn check(&mut self, hub: &mut Hub) -> Result<(), Failure> {
        let (is_news, refresh) = {
            let mut notes = self.notes.borrow_mut();
            if let Some(miscount) = notes.miscount.take() {
                return Err(Failure::new("conflicts", miscount));
            }
            (std::mem::take(&mut notes.is_news), notes.tables.clone())
        };
        if !is_news {
            return Ok(());
        }
        let request = PullRequest {
            replica: REPLICA,
            epoch: self.epoch,
            cursor: self.cursor,
            resume: self.cursor,
            refresh,
        };
        let snapshot = hub.snapshot(&self.caller, &request, hub.clock.now_ms()).unwrap();
        self.cursor = snapshot.done.cursor;
        let mut told = vec![snapshot.first];
        if let Some(mut rest) = snapshot.rest {
            while let Some(rows) = rest.next_chunk().unwrap() {
                told.push(rows);
            }
        }
        let checked = self.notes.borrow().model.check(&self.caller.tenant, &told);
        checked.map_err(|difference| Failure::new("the model differs", difference))
    }
}

impl Notes {
    fn take(&mut self, caller: &Caller, heard: &Heard<'_>) {
        match heard {
            Heard::Registered(request) => {
                self.model.registered(&caller.tenant, request.replica, &request.schema);
                for table in &request.schema {
                    if !self.tables.contains(&table.name) {
                        self.tables.push(table.name.clone());
                    }
                }
            }
            Heard::Pushed(request, ack) => {
                let (replica, sync, body) = (request.replica, request.counter, &request.body);
                let accepted = Accepted { replica, sync, body, ack };
                if let Err(miscount) = self.model.accepted(&caller.tenant, &accepted) {
                    self.miscount.get_or_insert(miscount);
                }
                self.is_news = true;
            }
            Heard::Told(cursor) => self.model.read(&caller.tenant, *cursor),
        }
    }
}
