//! Random changes to a library, as people and Calibre make them, each told in one line so that a failure can be read.
//! Must never depend on anything but the seed and the shelf.

use crate::damage::Seeded;
use crate::shelf::{Shelf, Story};

/// Where the shelf is kept between: enough to work on, few enough to be fast.
const FEWEST: usize = 4;
const MOST: usize = 14;

pub struct ShelfChanges {
    random: Seeded,
    stories: u64,
}

impl ShelfChanges {
    pub fn new(seed: u64) -> Self {
        Self { random: Seeded(seed.wrapping_mul(0xd134_2543_de82_ef95) | 1), stories: 100 }
    }

    /// One change; what it was. Without `may_remove` every book stays.
    pub fn change(&mut self, shelf: &mut Shelf, may_remove: bool) -> String {
        let count = shelf.ids().len();
        if count < FEWEST {
            return self.add(shelf);
        }
        let id = shelf.ids()[self.random.below(count)];
        let formats: Vec<String> = shelf.book(id).files.iter().map(|file| file.format.clone()).collect();
        let format = formats.get(self.random.below(formats.len())).cloned();
        match (self.random.below(16), format) {
            (0..=2, _) if count < MOST => self.add(shelf),
            (3, _) => {
                let tags = [["ape", "winter"], ["winter", "zebra"], ["hive", "queen"]][self.random.below(3)];
                let tags = &tags[..self.random.below(3)];
                shelf.set_tags(id, tags);
                format!("book {id} gets the tags {tags:?}")
            }
            (4, _) => {
                let series = (self.random.below(3) > 0).then(|| ("A series", self.random.below(5) as f64));
                shelf.set_series(id, series);
                format!("book {id} gets the series {series:?}")
            }
            (5, _) => {
                self.stories += 1;
                let title = format!("Title {}", self.stories);
                shelf.rename(id, &title);
                format!("book {id} is renamed to '{title}'")
            }
            (6 | 7, Some(format)) => {
                let story = self.story();
                shelf.add_format(id, &format, story);
                format!("{format} of book {id} is replaced by {story:?}")
            }
            (8, Some(format)) => {
                let story = self.story();
                shelf.remove_format(id, &format);
                shelf.add_format(id, &format, story);
                format!("{format} of book {id} is removed and added again as {story:?}")
            }
            (9, Some(format)) => {
                shelf.remove_format(id, &format);
                format!("{format} of book {id} is removed")
            }
            (10, _) => {
                let format = ["EPUB", "TXT"][self.random.below(2)];
                let story = self.story();
                shelf.add_format(id, format, story);
                format!("book {id} gets {format} with {story:?}")
            }
            (11, Some(format)) => {
                self.stories += 1;
                let story = Story::Damaged { number: self.stories };
                shelf.add_format(id, &format, story);
                format!("{format} of book {id} is damaged")
            }
            (12, Some(_)) => {
                shelf.embed_metadata(id);
                format!("metadata are embedded into book {id}")
            }
            (13, _) => {
                shelf.touch(id);
                format!("book {id} is touched")
            }
            (14, _) => {
                shelf.bump_all();
                "every book's last_modified moves".to_owned()
            }
            (15, _) if may_remove => {
                shelf.remove(id);
                format!("book {id} is removed")
            }
            _ => {
                shelf.rename(id, &format!("Again {id}"));
                format!("book {id} is renamed to 'Again {id}'")
            }
        }
    }

    /// A new book of one or two formats.
    pub fn add(&mut self, shelf: &mut Shelf) -> String {
        let (first, second) = (self.story(), self.story());
        let files = [("EPUB", first), ("TXT", second)];
        let files = match self.random.below(3) {
            0 => &files[..1],
            1 => &files[1..],
            _ => &files[..],
        };
        let author = ["Ana Anić", "B. Babić", "C. Cvek"][self.random.below(3)];
        let id = shelf.add(&format!("Book {}", self.stories), author, files);
        format!("book {id} is added with {files:?}")
    }

    /// Mostly a few chunks, now and then hundreds.
    fn story(&mut self) -> Story {
        self.stories += 1;
        let words = match self.random.below(12) {
            0 => 5000,
            1..=3 => 1000 + self.random.below(1000),
            _ => 30 + self.random.below(300),
        };
        Story::Text { number: self.stories, chapters: 1 + words / 300, words }
    }
}
