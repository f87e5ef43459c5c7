//! The shuffle, and other random numbers for the data. A later version of this crate may resume a training. So these
//! algorithms never change, and depend on no crate whose numbers might change.

/// Up to this many numbers are shuffled as a whole: they fit into a processor's cache.
const DIRECT_SHUFFLE_LIMIT: usize = 1 << 16;
/// The number of buckets for longer lists.
const BUCKETS: usize = 256;

/// The xoshiro256++ generator of David Blackman and Sebastiano Vigna. Their SplitMix64 fills its state.
#[derive(Clone)]
pub(super) struct Generator([u64; 4]);

impl Generator {
    pub(super) fn seeded(seed: u64) -> Self {
        let mut state = seed;
        Self([(); 4].map(|()| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }))
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let next = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        next
    }

    /// A number below `bound`, all equally likely, by Daniel Lemire's method. `bound` must be above 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let split = |product: u128| ((product >> 64) as u64, product as u64);
        let (mut drawn, mut rest) = split(u128::from(self.next()) * u128::from(bound));
        if rest < bound {
            let too_likely = bound.wrapping_neg() % bound;
            while rest < too_likely {
                (drawn, rest) = split(u128::from(self.next()) * u128::from(bound));
            }
        }
        drawn
    }

    /// Draws a bucket for each number below `numbers`.
    fn draw_buckets(&mut self, numbers: usize, mut to: impl FnMut(usize, u8)) {
        for first in (0..numbers).step_by(8) {
            let buckets = self.next().to_le_bytes();
            for (number, bucket) in (first..numbers).zip(buckets) {
                to(number, bucket);
            }
        }
    }

    /// The Fisher-Yates shuffle from the end, in Durstenfeld's version.
    fn shuffle<N>(&mut self, numbers: &mut [N]) {
        for last in (1..numbers.len()).rev() {
            let other = self.below(last as u64 + 1);
            numbers.swap(last, other as usize);
        }
    }
}

/// `count` different numbers below `len`, by Robert Floyd's method. `len` must be at least `count`. All choices are
/// equally likely, but not all orders.
pub(super) fn choose(count: usize, len: usize, seed: u64) -> Vec<usize> {
    let mut generator = Generator::seeded(seed);
    let mut is_chosen = vec![false; len];
    let mut choose = |number: usize| match is_chosen.get_mut(number) {
        Some(is_chosen) => !std::mem::replace(is_chosen, true),
        None => false,
    };
    let candidates = len.saturating_sub(count)..len;
    candidates
        .map(|last| {
            let drawn = generator.below(last as u64 + 1) as usize;
            match choose(drawn) {
                true => drawn,
                false => {
                    choose(last);
                    last
                }
            }
        })
        .collect()
}

/// The numbers from 0 on, shuffled.
pub(super) enum Shuffled {
    /// 32 bits where they are enough: half of the memory.
    Few(Vec<u32>),
    Many(Vec<u64>),
}

impl Shuffled {
    /// The numbers below `len`, in the order that `seed` determines.
    pub(super) fn new(len: usize, seed: u64) -> Self {
        match u32::try_from(len) {
            Ok(_) => Self::Few(shuffled(len, seed, |number| number as u32)),
            Err(_) => Self::Many(shuffled(len, seed, |number| number as u64)),
        }
    }

    /// The number at this place.
    pub(super) fn at(&self, place: usize) -> Option<usize> {
        match self {
            Self::Few(numbers) => numbers.get(place).map(|number| *number as usize),
            Self::Many(numbers) => numbers.get(place).map(|number| *number as usize),
        }
    }

    /// The numbers at these places.
    pub(super) fn get(&self, places: std::ops::Range<usize>) -> Vec<usize> {
        match self {
            Self::Few(numbers) => numbers
                .get(places)
                .unwrap_or_default()
                .iter()
                .map(|number| *number as usize)
                .collect(),
            Self::Many(numbers) => numbers
                .get(places)
                .unwrap_or_default()
                .iter()
                .map(|number| *number as usize)
                .collect(),
        }
    }
}

/// The numbers below `len`, shuffled. All orders are equally likely.
///
/// Many numbers are first dealt into buckets, and then each bucket is shuffled (C. R. Rao, M. Sandelius). This keeps
/// memory accesses within the processor's cache.
fn shuffled<N: Copy + Default>(len: usize, seed: u64, as_kept: impl Fn(usize) -> N) -> Vec<N> {
    let mut generator = Generator::seeded(seed);
    if len <= DIRECT_SHUFFLE_LIMIT {
        let mut numbers: Vec<N> = (0..len).map(as_kept).collect();
        generator.shuffle(&mut numbers);
        return numbers;
    }

    let mut sizes = [0; BUCKETS];
    generator.clone().draw_buckets(len, |_, bucket| {
        if let Some(size) = sizes.get_mut(usize::from(bucket)) {
            *size += 1;
        }
    });
    let mut end = 0;
    let mut places = sizes.map(|size| {
        end += size;
        end - size
    });
    let mut numbers = vec![N::default(); len];
    // Draws the same buckets again, which is cheaper than storing them.
    generator.draw_buckets(len, |number, bucket| {
        if let Some(place) = places.get_mut(usize::from(bucket)) {
            if let Some(kept) = numbers.get_mut(*place) {
                *kept = as_kept(number);
            }
            *place += 1;
        }
    });
    let mut rest = numbers.as_mut_slice();
    for size in sizes {
        let (bucket, others) = rest.split_at_mut(size);
        generator.shuffle(bucket);
        rest = others;
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize, seed: u64) -> Vec<usize> {
        Shuffled::new(len, seed).get(0..len)
    }

    #[test]
    fn the_generator_is_the_one_that_its_authors_published() {
        // From state 1, 2, 3, 4, and from seed 1477776061723855037.
        let mut generator = Generator([1, 2, 3, 4]);
        let first = [(); 5].map(|()| generator.next());
        assert_eq!(
            first,
            [
                41_943_041,
                58_720_359,
                3_588_806_011_781_223,
                3_591_011_842_654_386,
                9_228_616_714_210_784_205,
            ]
        );
        let Generator([a, b, ..]) = Generator::seeded(1_477_776_061_723_855_037);
        assert_eq!(
            [a, b],
            [1_985_237_415_132_408_290, 2_979_275_885_539_914_483]
        );
    }

    #[test]
    fn a_shuffle_does_not_change_between_versions() {
        assert_eq!(numbers(10, 42), [5, 3, 1, 0, 9, 6, 4, 7, 2, 8]);
        assert_eq!(
            numbers(1_000_003, 7)[..4],
            [452_181, 435_214, 725_270, 131_971]
        );
        // The same order with 64-bit numbers.
        let wide = shuffled(10, 42, |number| number as u64);
        assert!(
            numbers(10, 42)
                .iter()
                .zip(wide)
                .all(|(one, other)| *one as u64 == other)
        );
    }

    #[test]
    fn a_choice_does_not_change_between_versions() {
        assert_eq!(choose(4, 10, 42), [5, 2, 8, 7]);
    }

    #[test]
    fn a_choice_has_no_number_twice_and_each_is_equally_likely() {
        const CHOICES: usize = 20_000;
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..CHOICES as u64 {
            let mut chosen = choose(2, 5, seed);
            chosen.sort_unstable();
            *counts.entry(chosen).or_insert(0_usize) += 1;
        }
        assert!(counts.keys().all(|chosen| chosen[0] < chosen[1]));
        assert_eq!(counts.len(), 10);
        // Six standard deviations.
        assert!(
            counts
                .values()
                .all(|count| count.abs_diff(CHOICES / 10) < 255),
            "{counts:?}"
        );
        for (count, len) in [(0, 0), (0, 7), (7, 7), (99, 100)] {
            let chosen: std::collections::BTreeSet<_> = choose(count, len, 1).into_iter().collect();
            assert_eq!(chosen.len(), count);
            assert!(chosen.into_iter().all(|number| number < len));
        }
    }

    #[test]
    fn a_shuffle_has_each_number_once() {
        for len in [
            0,
            1,
            2,
            3,
            100,
            1000,
            DIRECT_SHUFFLE_LIMIT,
            DIRECT_SHUFFLE_LIMIT + 1,
            DIRECT_SHUFFLE_LIMIT + 13,
        ] {
            for seed in 0..10 {
                let mut numbers = numbers(len, seed);
                let shuffled = Shuffled::new(len, seed);
                assert!((0..len).all(|place| shuffled.at(place) == Some(numbers[place])));
                assert_eq!(shuffled.at(len), None);
                numbers.sort_unstable();
                assert!(numbers.into_iter().eq(0..len), "{len}, {seed}");
            }
        }
    }

    #[test]
    fn every_order_is_equally_likely() {
        const SHUFFLES: usize = 24_000;
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..SHUFFLES as u64 {
            *counts.entry(numbers(4, seed)).or_insert(0_usize) += 1;
        }
        assert_eq!(counts.len(), 24);
        // Six standard deviations.
        assert!(
            counts
                .values()
                .all(|count| count.abs_diff(SHUFFLES / 24) < 190),
            "{counts:?}"
        );
    }

    #[test]
    fn among_many_numbers_each_may_come_anywhere() {
        const LEN: usize = 8 * DIRECT_SHUFFLE_LIMIT;
        let numbers = numbers(LEN, 3);
        // Counts how many numbers of each eighth are at the places of each eighth.
        let mut counts = [[0_usize; 8]; 8];
        for (place, number) in numbers.iter().enumerate() {
            counts[place / DIRECT_SHUFFLE_LIMIT][number / DIRECT_SHUFFLE_LIMIT] += 1;
        }
        // Six standard deviations.
        let all = counts.as_flattened();
        assert!(
            all.iter()
                .all(|count| count.abs_diff(DIRECT_SHUFFLE_LIMIT / 8) < 550),
            "{counts:?}"
        );
        // Hardly any two neighbours stay next to each other.
        let kept = numbers.windows(2).filter(|two| two[0] + 1 == two[1]);
        assert!(kept.count() < 10);
    }

    #[test]
    fn numbers_below_any_bound_are_equally_likely() {
        // Two thirds of all `u64` values: without rejection, every second number would be twice as likely.
        let bound = u64::MAX / 3 * 2;
        let mut generator = Generator::seeded(1);
        let drawn = [(); 10_000].map(|()| generator.below(bound));
        assert!(drawn.iter().all(|number| *number < bound));
        let even = drawn.iter().filter(|number| *number % 2 == 0).count();
        assert!(even.abs_diff(5_000) < 300, "{even}");
    }
}
