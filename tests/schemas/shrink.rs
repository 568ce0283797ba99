//! Making a failing case smaller, so that a person can see what it takes.

use crate::case::Case;
use crate::checks::Failure;
use crate::database::Ablation;
use crate::draw_steps::Step;

/// How many smaller cases are tried.
const TRIES: usize = 600;

/// The smallest case found that fails in the same way, and how it fails.
pub fn shrink(case: Case, failure: Failure, ablation: Option<Ablation>) -> (Case, Failure) {
    let mut shrinker = Shrinker { case, failure, ablation, left: TRIES };
    loop {
        let before = shrinker.case.size();
        shrinker.drop_steps();
        shrinker.drop_statements();
        shrinker.drop_parts();
        if shrinker.case.size() == before || shrinker.left == 0 {
            return (shrinker.case, shrinker.failure);
        }
    }
}

struct Shrinker {
    case: Case,
    failure: Failure,
    ablation: Option<Ablation>,
    left: usize,
}

impl Shrinker {
    /// Keeps a smaller case if it fails in the same way.
    fn keeps(&mut self, smaller: Case) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        match smaller.run(self.ablation) {
            Err(failure) if failure.kind == self.failure.kind => {
                (self.case, self.failure) = (smaller, failure);
                true
            }
            _ => false,
        }
    }

    /// Leaves out steps: half of them at once at first, one at a time in the end.
    fn drop_steps(&mut self) {
        let mut chunk = self.case.steps.len().div_ceil(2);
        while chunk > 0 {
            let mut at = 0;
            while at < self.case.steps.len() {
                let mut smaller = self.case.clone();
                let end = (at + chunk).min(smaller.steps.len());
                smaller.steps.drain(at..end);
                if !self.keeps(smaller) {
                    at += chunk;
                }
            }
            chunk /= 2;
        }
    }

    /// Leaves out single statements.
    fn drop_statements(&mut self) {
        for step in 0..self.case.steps.len() {
            self.drop_each(|case| match &mut case.steps[step] {
                Step::Write(_, statements)
                | Step::Transaction(_, statements)
                | Step::Sync(_, _, statements) => Some(statements),
                Step::Pass(_) | Step::Rules(..) => None,
            });
        }
        self.drop_each(|case| Some(&mut case.template));
    }

    /// Leaves out parts of the schema.
    fn drop_parts(&mut self) {
        self.drop_each(|case| Some(&mut case.schema.tables));
        for table in 0..self.case.schema.tables.len() {
            self.drop_each(|case| Some(&mut case.schema.tables[table].triggers));
            self.drop_each(|case| Some(&mut case.schema.tables[table].indexes));
            self.drop_each(|case| Some(&mut case.schema.tables[table].unique));
            self.drop_each(|case| Some(&mut case.schema.tables[table].references));
            let mut smaller = self.case.clone();
            smaller.schema.tables[table].search = None;
            if smaller.size() < self.case.size() {
                self.keeps(smaller);
            }
        }
    }

    /// Leaves out each element of a list that can be spared, the last ones first.
    fn drop_each<T>(&mut self, list: impl Fn(&mut Case) -> Option<&mut Vec<T>>) {
        let mut at = list(&mut self.case).map_or(0, |list| list.len());
        while at > 0 {
            at -= 1;
            let mut smaller = self.case.clone();
            if let Some(list) = list(&mut smaller) {
                list.remove(at);
            }
            self.keeps(smaller);
        }
    }
}

impl Case {
    fn size(&self) -> usize {
        let steps = self.steps.iter().map(|step| match step {
            Step::Write(_, list) | Step::Transaction(_, list) | Step::Sync(_, _, list) => 1 + list.len(),
            Step::Pass(_) | Step::Rules(..) => 1,
        });
        steps.sum::<usize>() + self.template.len() + self.schema.statements().join("").len()
    }
}
