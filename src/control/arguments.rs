//! Arguments that both programs have alike. Plain values for clap; nothing is done here.

use clap::{Args, ValueEnum};

use super::protocol::{ChunkLevel, SearchRequest};

/// What to look for, and where.
#[derive(Debug, Clone, Args)]
pub struct SearchArguments {
    /// What to look for
    #[arg(required = true, num_args = 1..)]
    pub query: Vec<String>,
    /// Most passages shown
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub limit: usize,
    /// Only books in this language, such as en
    #[arg(long, value_name = "CODE")]
    pub language: Option<String>,
    /// Only books by this author: words of the name, in any case and order
    #[arg(long, value_name = "WORDS")]
    pub author: Option<String>,
    /// Only books with these words in their title
    #[arg(long, value_name = "WORDS")]
    pub title: Option<String>,
    /// Only books of this series
    #[arg(long, value_name = "WORDS")]
    pub series: Option<String>,
    /// Only books with this tag
    #[arg(long, value_name = "TAG")]
    pub tag: Option<String>,
    /// Only books read in this format, such as EPUB
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Only books of this publisher
    #[arg(long, value_name = "WORDS")]
    pub publisher: Option<String>,
    /// Only in this book: a Calibre id or a book's uuid
    #[arg(long, value_name = "ID")]
    pub book: Option<String>,
    /// Look for passages, or for whole chapters
    #[arg(long, value_enum, default_value_t = Level::Passage)]
    pub level: Level,
    /// Leave out what is less similar; 1 is the same text, 0 has nothing to do with it
    #[arg(long, value_name = "SIMILARITY", value_parser = similarity)]
    pub min_similarity: Option<f32>,
    /// Show whole passages, not only their beginning
    #[arg(long)]
    pub full: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    Passage,
    Chapter,
}

impl SearchArguments {
    pub fn request(&self) -> SearchRequest {
        SearchRequest {
            q: self.query.join(" "),
            limit: self.limit,
            language: self.language.clone(),
            author: self.author.clone(),
            title: self.title.clone(),
            series: self.series.clone(),
            tag: self.tag.clone(),
            format: self.format.clone(),
            publisher: self.publisher.clone(),
            book: self.book.clone(),
            level: match self.level {
                Level::Passage => None,
                Level::Chapter => Some(ChunkLevel::Parent),
            },
            min_similarity: self.min_similarity,
        }
    }

    /// The same as parameters of GET /search; what was not asked for is left out.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let request = self.request();
        let mut parameters = vec![("q", request.q), ("limit", request.limit.to_string())];
        let maybe = [
            ("language", request.language),
            ("author", request.author),
            ("title", request.title),
            ("series", request.series),
            ("tag", request.tag),
            ("format", request.format),
            ("publisher", request.publisher),
            ("book", request.book),
            ("level", request.level.map(|level| level.as_str().to_owned())),
            ("min_similarity", request.min_similarity.map(|least| least.to_string())),
        ];
        parameters.extend(maybe.into_iter().filter_map(|(name, value)| Some((name, value?))));
        parameters
    }
}

fn similarity(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number| (-1.0..=1.0).contains(number));
    number.ok_or_else(|| "expected a number from -1 to 1, such as 0.6".to_owned())
}

/// A part of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportTable {
    /// What embedded, before and after
    Models,
    /// Day by day
    Days,
    /// The books that took longest
    Slowest,
    /// Done, waiting and failed, by format and by language
    Coverage,
    /// Why books failed or cannot be read
    Reasons,
}
