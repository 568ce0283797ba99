//! Random choices that follow from a seed.

/// A source of choices.
pub struct Dice(fastrand::Rng);

impl Dice {
    /// The choices of a seed.
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound)
    }

    /// Any number: a seed for choices of their own.
    pub fn number(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// True in so many of a hundred cases.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.0.u32(..100) < percent
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// One of these, each as often as its weight says.
    pub fn weighed<T: Copy>(&mut self, of: &[(u32, T)]) -> T {
        let sum: u32 = of.iter().map(|(weight, _)| weight).sum();
        let mut left = self.0.u32(..sum);
        for (weight, one) in of {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *one,
            }
        }
        of[0].1
    }
}
