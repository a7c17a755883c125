//! A reproducible random number generator, SplitMix64. The algorithm is written out here and not taken from the `rand`
//! crate, because the bytes of a window must stay the same for a seed when a dependency is upgraded.

/// A stream of random numbers that depends only on its seed.
#[derive(Clone)]
pub(super) struct SplitMix64(u64);

impl SplitMix64 {
    /// Returns the stream for three numbers, such as a simulator's seed, a purpose, and a lot or a window.
    pub(super) fn with_seed(words: [u64; 3]) -> Self {
        let mut dice = SplitMix64(0x9e37_79b9_7f4a_7c15);
        for word in words {
            dice.0 ^= word.wrapping_mul(0xff51_afd7_ed55_8ccd);
            dice.0 = dice.next();
        }
        dice
    }

    /// Returns the next 64 bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `n`, which must not be zero. The number is the high half of a product, which avoids a
    /// division.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// Returns a number from `low` to `high`, both included.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    /// Returns true `n` times in a thousand.
    pub(super) fn per_mille(&mut self, n: u64) -> bool {
        self.below(1000) < n
    }

    /// Returns true with probability `p`.
    pub(super) fn with_probability(&mut self, p: f64) -> bool {
        (self.next() >> 11) as f64 * (1.0 / (1u64 << 53) as f64) < p
    }

    /// Returns `x` rounded up or down. The fraction is the probability of rounding up, so that small feeds change too.
    pub(super) fn round_randomly(&mut self, x: f64) -> usize {
        let whole = x.max(0.0).floor();
        whole as usize + usize::from(self.with_probability(x.max(0.0) - whole))
    }

    /// Returns one of the values.
    pub(super) fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }

    /// Returns the index of one entry of a table, with a probability proportional to its weight.
    pub(super) fn pick_weighted<T>(&mut self, table: &[T], weight: impl Fn(&T) -> u32) -> usize {
        let total: u64 = table.iter().map(|entry| u64::from(weight(entry))).sum();
        let mut left = self.below(total.max(1));
        for (index, entry) in table.iter().enumerate() {
            let w = u64::from(weight(entry));
            if left < w {
                return index;
            }
            left -= w;
        }
        0
    }

    /// Removes and returns a random entry of a list. Changes the order of the list.
    pub(super) fn remove_random(&mut self, list: &mut Vec<u32>) -> Option<u32> {
        (!list.is_empty()).then(|| list.swap_remove(self.below(list.len() as u64) as usize))
    }
}
