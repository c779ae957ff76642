//! Damaged and hostile books of every format, made from a seed: the same seed gives the same files on every machine.
//! They are made one by one while they are asked for, so that ten thousand of them need no disk. Must never name a type
//! of the program: the same files go through the readers, through the sandbox and through the daemon.

pub mod archives;
mod frames;
mod heavy;
pub mod kindle;
mod markup;
mod mutate;
mod office;
mod pdf;
mod rtf;
pub mod seeds;
mod texts;

pub use self::mutate::{Seeded, damage, mutations};
use self::seeds::Seed;

/// Name, format as Calibre calls it, and content.
pub type File = (String, &'static str, Vec<u8>);

/// A hostile file that is made when its turn comes.
type Recipe = (String, &'static str, Box<dyn Fn() -> Vec<u8> + Send>);

/// A name, and what makes the file.
type Attack = (&'static str, fn() -> Vec<u8>);

fn recipe(name: impl Into<String>, format: &'static str, make: impl Fn() -> Vec<u8> + Send + 'static) -> Recipe {
    (name.into(), format, Box::new(make))
}

/// First every attack that is known by name, each once; then mutations of small books without end.
pub fn damaged_files(seed: u64) -> impl Iterator<Item = File> + Send {
    damaged_files_with(seed, Vec::new())
}

/// The same, with mutations of `more` books among the others.
pub fn damaged_files_with(seed: u64, more: Vec<Seed>) -> impl Iterator<Item = File> + Send {
    let mut seeds = seeds::all();
    seeds.extend(more);
    hostile_files().chain(mutations(seed, seeds))
}

/// The attacks that are known by name and cost little.
pub fn hostile_files() -> impl Iterator<Item = File> + Send {
    let recipes = [
        archives::recipes(),
        frames::recipes(),
        office::recipes(),
        kindle::recipes(),
        rtf::recipes(),
        texts::recipes(),
        pdf::recipes(),
    ];
    make(recipes.into_iter().flatten())
}

/// Files that are, or unpack to, as much as the limits allow: each costs a second or more.
pub fn heavy_files() -> impl Iterator<Item = File> + Send {
    make(heavy::recipes())
}

fn make(recipes: impl IntoIterator<Item = Recipe, IntoIter: Send>) -> impl Iterator<Item = File> + Send {
    recipes.into_iter().map(|(name, format, make)| (name, format, make()))
}
