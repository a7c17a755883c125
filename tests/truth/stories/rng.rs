//! A random number generator with a seed.

/// A pseudo-random number generator with a seed (SplitMix64).
pub struct StoryRng(pub u64);

impl StoryRng {
    /// Returns a number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    /// Returns true with a probability of `n` percent.
    pub fn is_drawn(&mut self, n: usize) -> bool {
        self.below(100) < n
    }

    /// Shuffles the values.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for n in (1..values.len()).rev() {
            values.swap(n, self.below(n + 1));
        }
    }
}
