//! Mappings in the order of the file. Most have a few keys, and a large project has ten thousand of them, so a small
//! one is a list that is searched, which is as fast and takes half of the memory; a large one has an index beside it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::slice;
use std::sync::Arc;
use std::vec;

use super::tree::{Mark, Node};

/// What belongs to a key: where the key was written, and the value.
pub type Entry = (Mark, Node);

type Pair = (Arc<str>, Entry);

/// Mappings of more keys than this are indexed.
const SMALL: usize = 24;

/// A mapping that keeps the order in which keys were added.
#[derive(Clone, Debug, Default)]
pub struct Map {
    entries: Vec<Pair>,
    index: Option<Box<Index>>,
}

/// Positions by key. The hasher is seeded per process, so that no file can be made whose keys collide.
type Index = HashMap<Arc<str>, u32, foldhash::fast::RandomState>;

impl Map {
    /// An empty map with room for so many keys.
    pub fn with_capacity(keys: usize) -> Self {
        Self { entries: Vec::with_capacity(keys), index: None }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn position(&self, key: &str) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(key).and_then(|position| usize::try_from(*position).ok()),
            None => {
                // Most keys differ in length or in their last letter; comparing texts is a call.
                let last = key.as_bytes().last();
                let fits = |known: &str| known.len() == key.len() && known.as_bytes().last() == last && known == key;
                self.entries.iter().position(|(known, _)| fits(known))
            }
        }
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.position(key).is_some()
    }

    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(self.position(key)?).map(|(_, entry)| entry)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Entry> {
        let position = self.position(key)?;
        self.entries.get_mut(position).map(|(_, entry)| entry)
    }

    /// Adds a key at the end, or gives one that is there another value, which is returned.
    pub fn insert(&mut self, key: Arc<str>, entry: Entry) -> Option<Entry> {
        match self.get_mut(&key) {
            Some(slot) => Some(std::mem::replace(slot, entry)),
            None => {
                self.push(key, entry);
                None
            }
        }
    }

    /// The value of a key, which is added at the end when it is missing.
    pub fn get_or_insert_with(&mut self, key: Arc<str>, entry: impl FnOnce() -> Entry) -> &mut Entry {
        let position = self.position(&key).unwrap_or_else(|| {
            self.push(key, entry());
            self.entries.len() - 1
        });
        let (_, entry) = &mut self.entries[position];
        entry
    }

    /// Adds a key that is not there.
    fn push(&mut self, key: Arc<str>, entry: Entry) {
        if let Some(index) = &mut self.index {
            index.insert(Arc::clone(&key), small(self.entries.len()));
        }
        self.entries.push((key, entry));
        if self.index.is_none() && self.entries.len() > SMALL {
            self.make_index();
        }
    }

    fn make_index(&mut self) {
        self.index = (self.entries.len() > SMALL).then(|| {
            let keys = self.entries.iter().enumerate();
            Box::new(keys.map(|(position, (key, _))| (Arc::clone(key), small(position))).collect())
        });
    }

    /// Takes a key out; those behind it move up.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        let position = self.position(key)?;
        let (_, entry) = self.entries.remove(position);
        if let Some(index) = &mut self.index {
            index.remove(key);
            index.values_mut().filter(|other| **other > small(position)).for_each(|other| *other -= 1);
        }
        Some(entry)
    }

    /// Keeps the entries that `keep` says yes to, in their order.
    pub fn retain(&mut self, mut keep: impl FnMut(&Arc<str>, &mut Entry) -> bool) {
        let before = self.entries.len();
        self.entries.retain_mut(|(key, entry)| keep(key, entry));
        if self.entries.len() < before && self.index.is_some() {
            self.make_index();
        }
    }

    /// What is behind the first `length` keys, which stay.
    #[must_use]
    pub fn split_off(&mut self, length: usize) -> Self {
        let mut rest = Self { entries: self.entries.split_off(length), index: None };
        rest.make_index();
        self.make_index();
        rest
    }

    /// Changes the order, by the keys.
    pub fn sort_by(&mut self, mut compare: impl FnMut(&str, &str) -> std::cmp::Ordering) {
        self.entries.sort_by(|(a, _), (b, _)| compare(a, b));
        if self.index.is_some() {
            self.make_index();
        }
    }

    /// Brings the keys into the order of their bytes.
    pub fn sort_keys(&mut self) {
        self.sort_by(str::cmp);
    }

    pub fn shrink_to_fit(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// Entries in the order of the file.
    pub fn iter(&self) -> Iter<'_> {
        self.entries.iter().map(|(key, entry)| (key, entry))
    }

    pub fn iter_mut(&mut self) -> IterMut<'_> {
        self.entries.iter_mut().map(|(key, entry)| (&*key, entry))
    }

    pub fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|(_, entry)| entry)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().map(|(_, entry)| entry)
    }
}

/// A key or text that the program itself writes: it is made once, however many mappings have it.
pub fn known_key(key: &'static str) -> Arc<str> {
    thread_local! {
        static KEYS: RefCell<HashMap<(usize, usize), Arc<str>, foldhash::fast::RandomState>> = RefCell::default();
    }
    let place = (key.as_ptr().addr(), key.len());
    KEYS.with_borrow_mut(|keys| Arc::clone(keys.entry(place).or_insert_with(|| Arc::from(key))))
}

fn small(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

type Iter<'a> = std::iter::Map<slice::Iter<'a, Pair>, fn(&'a Pair) -> (&'a Arc<str>, &'a Entry)>;
type IterMut<'a> = std::iter::Map<slice::IterMut<'a, Pair>, fn(&'a mut Pair) -> (&'a Arc<str>, &'a mut Entry)>;

impl<'a> IntoIterator for &'a Map {
    type Item = (&'a Arc<str>, &'a Entry);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a mut Map {
    type Item = (&'a Arc<str>, &'a mut Entry);
    type IntoIter = IterMut<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl IntoIterator for Map {
    type Item = Pair;
    type IntoIter = vec::IntoIter<Pair>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl FromIterator<Pair> for Map {
    fn from_iter<I: IntoIterator<Item = Pair>>(pairs: I) -> Self {
        let mut map = Self::default();
        map.extend(pairs);
        map
    }
}

impl Extend<Pair> for Map {
    fn extend<I: IntoIterator<Item = Pair>>(&mut self, pairs: I) {
        let pairs = pairs.into_iter();
        match (self.entries.is_empty(), pairs.size_hint().0) {
            // A large project has very many mappings of two or three keys.
            (true, keys) => self.entries.reserve_exact(keys),
            (false, keys) => self.entries.reserve(keys),
        }
        for (key, entry) in pairs {
            self.insert(key, entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::tree::Value;

    fn entry(number: i64) -> Entry {
        (Mark::default(), Node::new(Value::Int(number), Mark::default()))
    }

    fn number((_, node): &Entry) -> i64 {
        if let Value::Int(number) = node.value { number } else { -1 }
    }

    fn content(map: &Map) -> Vec<(String, i64)> {
        map.iter().map(|(key, entry)| (key.to_string(), number(entry))).collect()
    }

    proptest! {
        // A list of pairs does the same, whatever is done to it.
        #[test]
        fn small_and_large_ones_do_what_a_list_does(steps in prop::collection::vec((0..6_u8, 0..60_u8), 0..200)) {
            let (mut map, mut list) = (Map::default(), Vec::<(String, i64)>::new());
            for (step, value) in steps {
                let (key, value) = (value.to_string(), i64::from(value));
                match step {
                    0..=2 => {
                        map.insert(key.as_str().into(), entry(value + i64::from(step)));
                        match list.iter_mut().find(|(known, _)| *known == key) {
                            Some((_, slot)) => *slot = value + i64::from(step),
                            None => list.push((key.clone(), value + i64::from(step))),
                        }
                    }
                    3 => {
                        let removed = map.remove(&key).map(|entry| number(&entry));
                        let position = list.iter().position(|(known, _)| *known == key);
                        prop_assert_eq!(removed, position.map(|position| list.remove(position).1));
                    }
                    4 => {
                        map.sort_keys();
                        list.sort();
                    }
                    _ => {
                        map.retain(|_, entry| number(entry) != value);
                        list.retain(|(_, other)| *other != value);
                    }
                }
                prop_assert_eq!(map.contains_key(&key), list.iter().any(|(known, _)| *known == key));
            }
            prop_assert_eq!(&content(&map), &list);
            let half = list.len() / 2;
            let rest = map.split_off(half);
            prop_assert_eq!(content(&rest), list.split_off(half));
            prop_assert!(list.iter().all(|(key, value)| map.get(key).map(number) == Some(*value)));
        }
    }
}
