//! The plugins of a queue: their lanes, and whose turn it is.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use super::{
    Load, Priority, Slowed,
    governor::Governor,
    slots::{List, Number, Slots, State},
};
use crate::names::PluginId;

/// One key in so many is the one that has waited longest.
const AGED: u32 = 4;

#[derive(Debug)]
pub(super) struct Plugin {
    pub id: PluginId,
    /// 0: closed, and only there because something still runs.
    pub concurrency: usize,
    pub governor: Option<Governor>,
    /// By priority.
    lanes: [List; 3],
    delayed: List,
    pub running: List,
    handed_out: u32,
    in_ring: bool,
}

impl Plugin {
    fn new(id: PluginId) -> Self {
        Self {
            id,
            concurrency: 0,
            governor: None,
            lanes: Default::default(),
            delayed: List::default(),
            running: List::default(),
            handed_out: 0,
            in_ring: false,
        }
    }

    /// What waits, taken out.
    pub fn lists(&mut self) -> [List; 4] {
        let [edit, dependency, background] = std::mem::take(&mut self.lanes);
        [edit, dependency, background, std::mem::take(&mut self.delayed)]
    }

    fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.len).sum()
    }

    /// The list that a slot in this state is in.
    fn list(&mut self, state: State, priority: Priority) -> &mut List {
        let [edit, dependency, background] = &mut self.lanes;
        match (state, priority) {
            (State::Running, _) => &mut self.running,
            (State::Delayed | State::Braked, _) => &mut self.delayed,
            (State::Ready, Priority::Edit) => edit,
            (State::Ready, Priority::Dependency) => dependency,
            (State::Ready, Priority::Background) => background,
        }
    }

    fn limit(&self, now: Instant) -> usize {
        self.governor.as_ref().map_or(self.concurrency, |governor| governor.limit_at(self.concurrency, now))
    }
}

#[derive(Debug, Default)]
pub(super) struct Plugins {
    numbers: HashMap<PluginId, Number>,
    plugins: Vec<Option<Plugin>>,
    /// Plugins that may have something to run, in the order of their turns.
    ring: VecDeque<Number>,
    /// Plugins that have a governor.
    pub slowed: Vec<Number>,
    /// Those that are no longer, since somebody asked.
    pub recovered: Vec<PluginId>,
}

impl Plugins {
    pub fn find(&self, id: &PluginId) -> Option<Number> {
        self.numbers.get(id).copied()
    }

    pub fn get(&self, number: Number) -> Option<&Plugin> {
        self.plugins.get(number as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, number: Number) -> Option<&mut Plugin> {
        self.plugins.get_mut(number as usize)?.as_mut()
    }

    pub fn is_open(&self, number: Number) -> bool {
        self.get(number).is_some_and(|plugin| plugin.concurrency > 0)
    }

    pub fn open(&mut self, id: PluginId, concurrency: usize) {
        let number = self.find(&id).unwrap_or_else(|| self.insert(id));
        if let Some(plugin) = self.get_mut(number) {
            plugin.concurrency = concurrency;
        }
        self.take_turn(number);
    }

    fn insert(&mut self, id: PluginId) -> Number {
        let free = self.plugins.iter().position(Option::is_none).unwrap_or_else(|| {
            self.plugins.push(None);
            self.plugins.len() - 1
        });
        let number = Number::try_from(free).unwrap_or(Number::MAX);
        self.numbers.insert(id.clone(), number);
        if let Some(place) = self.plugins.get_mut(free) {
            *place = Some(Plugin::new(id));
        }
        number
    }

    /// Its lists are empty, but for what runs.
    pub fn close(&mut self, number: Number) {
        self.slowed.retain(|slowed| *slowed != number);
        if let Some(plugin) = self.get_mut(number) {
            (plugin.concurrency, plugin.governor) = (0, None);
        }
        self.forget(number);
    }

    /// Unless something still runs.
    pub fn forget(&mut self, number: Number) {
        if let Some(plugin) = self.plugins.get_mut(number as usize)
            && let Some(Plugin { id, .. }) = plugin.take_if(|plugin| plugin.concurrency == 0 && plugin.running.len == 0)
        {
            self.numbers.remove(&id);
            self.ring.retain(|other| *other != number);
        }
    }

    pub fn went_well(&mut self, number: Number) {
        if let Some(governor) = self.get_mut(number).and_then(|plugin| plugin.governor.as_mut()) {
            governor.went_well();
        }
    }

    /// Out of whichever list it is in.
    pub fn unlink(&mut self, slots: &mut Slots, number: Number) {
        let Some(slot) = slots.get(number) else { return };
        let (state, priority, plugin) = (slot.state, slot.priority, slot.plugin);
        if let Some(plugin) = self.get_mut(plugin) {
            slots.unlink(plugin.list(state, priority), number);
        }
    }

    /// Of a slot that is in no list: into the lane of this priority.
    pub fn line_up(&mut self, slots: &mut Slots, number: Number, priority: Priority, since: Instant) {
        let plugin = self.put(slots, number, State::Ready, priority, since);
        self.take_turn(plugin);
    }

    /// From its lane into one before; it has waited as long as it has.
    pub fn lift(&mut self, slots: &mut Slots, number: Number, priority: Priority) {
        let Some(since) = slots.get(number).map(|slot| slot.at) else { return };
        self.unlink(slots, number);
        self.line_up(slots, number, priority, since);
    }

    pub fn delay(&mut self, slots: &mut Slots, number: Number, state: State, priority: Priority, at: Instant) {
        self.put(slots, number, state, priority, at);
    }

    fn put(&mut self, slots: &mut Slots, number: Number, state: State, priority: Priority, at: Instant) -> Number {
        let Some(slot) = slots.get_mut(number) else { return Number::MAX };
        (slot.state, slot.priority, slot.at) = (state, priority, at);
        let plugin = slot.plugin;
        if let Some(plugin) = self.get_mut(plugin) {
            slots.push(plugin.list(state, priority), number);
        }
        plugin
    }

    /// A place in the ring, if it may run something. Plugins that are slowed down get theirs in [`Plugins::settle`].
    pub fn take_turn(&mut self, number: Number) {
        if let Some(plugin) = self.get(number)
            && plugin.governor.is_none()
        {
            self.enter_ring(number, plugin.concurrency);
        }
    }

    fn enter_ring(&mut self, number: Number, limit: usize) {
        if let Some(plugin) = self.get_mut(number)
            && !plugin.in_ring
            && plugin.running.len < limit
            && plugin.waiting() > 0
        {
            plugin.in_ring = true;
            self.ring.push_back(number);
        }
    }

    pub fn next_turn(&mut self) -> Option<Number> {
        let number = self.ring.pop_front()?;
        if let Some(plugin) = self.get_mut(number) {
            plugin.in_ring = false;
        }
        Some(number)
    }

    /// The next key of a plugin, which runs from now on.
    pub fn next(&mut self, slots: &mut Slots, number: Number, now: Instant) -> Option<Number> {
        let plugin = self.get_mut(number)?;
        if plugin.running.len >= plugin.limit(now) {
            return None;
        }
        plugin.handed_out = plugin.handed_out.wrapping_add(1);
        let mut heads = plugin.lanes.iter().filter_map(List::first);
        let key = if plugin.handed_out.is_multiple_of(AGED) {
            heads.rev().min_by_key(|head| slots.get(*head).map(|slot| slot.at))?
        } else {
            heads.next()?
        };
        let slot = slots.get(key)?;
        let (priority, since) = (slot.priority, slot.at);
        self.unlink(slots, key);
        self.put(slots, key, State::Running, priority, since);
        Some(key)
    }

    /// Governors that are no longer needed go, and plugins that may run one more get a turn.
    pub fn settle(&mut self, now: Instant) {
        let mut slowed = std::mem::take(&mut self.slowed);
        slowed.retain(|number| {
            let Some(plugin) = self.get_mut(*number) else { return false };
            let concurrency = plugin.concurrency;
            let over = plugin.governor.take_if(|governor| governor.is_over(concurrency, now)).map(|_| plugin.id.clone());
            let (stays, limit) = (plugin.governor.is_some(), plugin.limit(now));
            self.enter_ring(*number, limit);
            self.recovered.extend(over);
            stays
        });
        self.slowed = slowed;
    }

    /// When a plugin that is slowed down may run one more key, or is itself again.
    pub fn next_step(&self, now: Instant) -> Option<Instant> {
        let slowed = self.slowed.iter().filter_map(|number| self.get(*number));
        slowed.filter_map(|plugin| Some(plugin.governor.as_ref()?.next_step(now))).min()
    }

    pub fn slowed(&self, id: &PluginId, now: Instant) -> Option<Slowed> {
        let plugin = self.get(self.find(id)?)?;
        let governor = plugin.governor.as_ref().filter(|governor| !governor.is_over(plugin.concurrency, now))?;
        Some(governor.slowed(plugin.concurrency, now))
    }

    pub fn load(&self) -> impl Iterator<Item = Load<'_>> {
        self.plugins.iter().flatten().map(|plugin| Load {
            plugin: &plugin.id,
            waiting: plugin.waiting(),
            delayed: plugin.delayed.len,
            running: plugin.running.len,
            concurrency: plugin.concurrency,
        })
    }
}
