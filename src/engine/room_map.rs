//! The rooms of a shard by name, in memory that goes when they go.
//!
//! The rooms lie side by side in one list; the last one moves into the place of one that leaves. So what is no
//! longer needed is always the end of one block, which the allocator gives back to the system at once, whoever
//! else stays: a block of that size is a mapping of its own, and is resized without being copied. Boxes that
//! are freed one by one would leave holes between what stays, and their memory with the process.
//!
//! The names are split into parts, because a table moves all its entries when it grows or shrinks: of a few
//! hundred thousand rooms some thousand are in each, which takes a fraction of a millisecond.

use ahash::AHashMap;

use crate::ids::Channel;

/// Parts of the names.
const PARTS: usize = 64;

/// A table, or a short list, shrinks when it could hold this many times its rooms, to twice its rooms: so many must come or go
/// before it is moved again.
const SPARE_MAX: usize = 8;

/// Rooms up to which the list keeps its memory.
const ROOMS_KEPT: usize = 64;

/// Rooms whose memory a long list gives back at a time, some 2 MB: to free hundreds takes the system many
/// milliseconds.
const ROOMS_PER_STEP: usize = 4096;

/// Names for which a part keeps its table until the last one leaves. A smaller block is one that allocators keep
/// for the next of its size, and while most rooms leave it would lie behind all of them and hold their memory.
const NAMES_KEPT: usize = 56;

/// A room that knows its name.
pub(super) trait Named {
    fn channel(&self) -> &Channel;
}

/// Rooms by name.
#[derive(Debug)]
pub(super) struct RoomMap<R> {
    rooms: Vec<R>,
    parts: Box<[Part]>,
}

/// A part of the names, with the places of their rooms in the list.
#[derive(Debug, Default)]
struct Part {
    places: AHashMap<Channel, usize>,
    /// Names that the table is large enough for. (Its `capacity` tells less once some were removed.)
    fits: usize,
}

impl<R> Default for RoomMap<R> {
    fn default() -> Self {
        Self { rooms: Vec::new(), parts: (0..PARTS).map(|_| Part::default()).collect() }
    }
}

impl<R: Named> RoomMap<R> {
    pub(super) fn len(&self) -> usize {
        self.rooms.len()
    }

    pub(super) fn get(&self, channel: &Channel) -> Option<&R> {
        let place = *self.parts[part_of(channel)].places.get(channel)?;
        Some(&self.rooms[place])
    }

    pub(super) fn get_mut(&mut self, channel: &Channel) -> Option<&mut R> {
        let place = *self.parts[part_of(channel)].places.get(channel)?;
        Some(&mut self.rooms[place])
    }

    /// The room, made if it is not there.
    pub(super) fn get_or_insert_with(&mut self, channel: &Channel, make: impl FnOnce() -> R) -> &mut R {
        let part = &mut self.parts[part_of(channel)];
        if let Some(&place) = part.places.get(channel) {
            return &mut self.rooms[place];
        }
        let (place, room) = (self.rooms.len(), make());
        debug_assert_eq!(room.channel(), channel, "a room of another name");
        part.places.insert(channel.clone(), place);
        part.fits = part.fits.max(part.places.len());
        self.rooms.push(room);
        &mut self.rooms[place]
    }

    /// Drops a room, and gives back the memory that is not needed any more.
    pub(super) fn remove(&mut self, channel: &Channel) {
        let Some(place) = self.parts[part_of(channel)].remove(channel) else { return };
        drop(self.rooms.swap_remove(place));
        if let Some(moved) = self.rooms.get(place)
            && let Some(its_place) = self.parts[part_of(moved.channel())].places.get_mut(moved.channel())
        {
            *its_place = place;
        }
        self.shrink();
    }

    /// Gives back memory that twice the rooms do not need: the more rooms left since, the more steps were made.
    fn shrink(&mut self) {
        let (len, capacity) = (self.rooms.len(), self.rooms.capacity());
        if capacity > 2 * len + ROOMS_PER_STEP {
            self.rooms.shrink_to(capacity - ROOMS_PER_STEP);
        } else if capacity > ROOMS_KEPT.max(len * SPARE_MAX) {
            self.rooms.shrink_to(len * 2);
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &R> {
        self.rooms.iter()
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut R> {
        self.rooms.iter_mut()
    }
}

impl Part {
    fn remove(&mut self, channel: &Channel) -> Option<usize> {
        let place = self.places.remove(channel)?;
        self.fits = match self.places.len() {
            0 => 0,
            left if self.fits > NAMES_KEPT.max(left) * SPARE_MAX => NAMES_KEPT.max(left * 2),
            _ => return Some(place),
        };
        self.places.shrink_to(self.fits);
        Some(place)
    }
}

/// The low bits of the hash choose the shard.
fn part_of(channel: &Channel) -> usize {
    (channel.stable_hash() >> 32) as usize % PARTS
}

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests {
    use super::*;

    struct Numbered(Channel, usize);

    impl Named for Numbered {
        fn channel(&self) -> &Channel {
            &self.0
        }
    }

    fn name(number: usize) -> Channel {
        Channel::new(&format!("room{number}")).unwrap()
    }

    fn filled(rooms: usize) -> RoomMap<Numbered> {
        let mut map = RoomMap::default();
        for number in 0..rooms {
            map.get_or_insert_with(&name(number), || Numbered(name(number), number));
        }
        map
    }

    #[test]
    fn rooms_are_found_by_name_whoever_leaves() {
        let mut map = filled(1000);
        assert_eq!(map.get_or_insert_with(&name(7), || panic!("it is there")).1, 7);
        for number in (0..1000).filter(|number| number % 3 > 0) {
            map.remove(&name(number));
            map.remove(&name(number));
        }
        map.get_mut(&name(6)).unwrap().1 = 60;
        assert_eq!((map.len(), map.values().count(), map.values_mut().count()), (334, 334, 334));
        for number in 0..1000 {
            let expected = (number % 3 == 0).then_some(if number == 6 { 60 } else { number });
            assert_eq!(map.get(&name(number)).map(|room| room.1), expected);
        }
    }

    /// No table is so large that moving it takes long, and no memory stays, except for those rooms that do.
    #[test]
    fn memory_follows_the_rooms_in_small_steps() {
        const ROOMS: usize = 100_000;
        let mut map = filled(ROOMS);
        let capacity = |map: &RoomMap<_>| map.parts.iter().map(|part| part.places.capacity()).max().unwrap();
        assert!(capacity(&map) < 4 * ROOMS / PARTS, "the parts are uneven");
        let mut moves = 0;
        for number in (0..ROOMS).filter(|number| number % 1000 > 0) {
            let fits = map.parts[part_of(&name(number))].fits;
            map.remove(&name(number));
            moves += usize::from(map.parts[part_of(&name(number))].fits != fits);
        }
        assert_eq!(map.len(), ROOMS / 1000);
        assert!(map.rooms.capacity() <= SPARE_MAX * ROOMS / 1000);
        assert!(capacity(&map) < 2 * SPARE_MAX * NAMES_KEPT);
        assert!(moves <= 6 * PARTS, "{moves} tables were moved for {ROOMS} rooms");
        (0..ROOMS).for_each(|number| map.remove(&name(number)));
        assert!(map.rooms.capacity() <= ROOMS_KEPT && capacity(&map) == 0, "memory stays for nobody");
    }
}
