//! Whether everything can still come to rest, from wherever it got to. A run
//! in which two workers fence each other for ever never ends, so "in the end"
//! is told as: no state is reached from which there is no way to an end.

use std::collections::HashMap;

use stateright::Model;

use super::scene::Scene;
use super::shared::Shared;
use super::world::World;

/// The first state met from which rest is out of reach.
pub(crate) fn stuck(scene: &Scene) -> Option<World> {
    let mut numbers: HashMap<u64, usize> = HashMap::new();
    let mut worlds: Vec<World> = Vec::new();
    let mut before: Vec<Vec<usize>> = Vec::new();
    let mut add = |world: World, worlds: &mut Vec<World>, before: &mut Vec<Vec<usize>>| {
        *numbers.entry(Shared::new(world.clone()).digest()).or_insert_with(|| {
            worlds.push(world);
            before.push(Vec::new());
            worlds.len() - 1
        })
    };
    for world in scene.init_states() {
        add(world, &mut worlds, &mut before);
    }
    let mut at = 0;
    while at < worlds.len() {
        for next in scene.next_states(&worlds[at]) {
            let next = add(next, &mut worlds, &mut before);
            before[next].push(at);
        }
        at += 1;
    }
    let mut can_rest: Vec<bool> = worlds.iter().map(|world| world.is_at_rest(scene)).collect();
    let mut open: Vec<usize> = (0..worlds.len()).filter(|at| can_rest[*at]).collect();
    while let Some(at) = open.pop() {
        for from in before[at].drain(..) {
            if !std::mem::replace(&mut can_rest[from], true) {
                open.push(from);
            }
        }
    }
    can_rest.iter().position(|can| !can).map(|at| worlds.swap_remove(at))
}
