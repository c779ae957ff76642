//! Texts as clients send them: one, or a list, and nothing else; and the way from them to vectors. Must never hand a
//! list to the embedder that is over the limit, nor keep it at work for a client that has gone.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::StatusCode;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use super::guard::Place;
use super::{EmbedRefusal, EmbedTask, Embedded, Shared, TooLong};
use crate::control::answer::Refusal;

/// One text or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Texts {
    pub list: Vec<String>,
    /// It was one, not a list of one.
    pub one: bool,
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Texts, E> {
                self.visit_string(text.to_owned())
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Texts, E> {
                Ok(Texts { list: vec![text], one: true })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
                let mut list = Vec::new();
                while let Some(Text(text)) = items.next_element()? {
                    list.push(text);
                }
                Ok(Texts { list, one: false })
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

/// One text of a list; says what is wrong with token ids.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const IDS: &str = "token ids are not taken, since they mean another tokenizer's words: send the text itself";
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Text, E> {
                Ok(Text(text))
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<Text, E> {
                Err(E::custom(IDS))
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<Text, E> {
                Err(E::custom(IDS))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Text, A::Error> {
                Err(A::Error::custom(IDS))
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

impl utoipa::PartialSchema for Texts {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        OneOfBuilder::new()
            .item(text())
            .item(ArrayBuilder::new().items(text()))
            .description(Some("A text or a list of texts."))
            .into()
    }
}

impl utoipa::ToSchema for Texts {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Texts")
    }
}

/// What a client may send as numbers that this service only checks.
pub(super) fn check_dimensions(wanted: Option<i64>, has: usize) -> Result<(), String> {
    match wanted {
        Some(wanted) if wanted != has as i64 => Err(format!("the model's vectors have {has} dimensions, not {wanted}")),
        _ => Ok(()),
    }
}

/// Why texts come back without vectors: the dialects each have their own words for it.
#[derive(Debug)]
pub(super) enum NotEmbedded {
    TooMany { given: usize, most: usize },
    Refused(EmbedRefusal),
    Panicked,
}

impl NotEmbedded {
    pub fn message(&self) -> String {
        match self {
            NotEmbedded::TooMany { given, most } => {
                format!("{given} texts in one request, at most {most} are taken (http.max_texts)")
            }
            NotEmbedded::Refused(refusal) => refusal.to_string(),
            NotEmbedded::Panicked => "the request panicked; this is a bug".to_owned(),
        }
    }

    /// The status of the plain dialect.
    pub fn refusal(&self) -> Refusal {
        let (status, hint) = match self {
            NotEmbedded::TooMany { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "send them in several requests"),
            NotEmbedded::Refused(EmbedRefusal::TooLong { .. }) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "split the text, so that nothing of it is lost")
            }
            NotEmbedded::Refused(EmbedRefusal::Unavailable(_)) => (StatusCode::SERVICE_UNAVAILABLE, "try again later"),
            NotEmbedded::Refused(EmbedRefusal::Failed(_)) | NotEmbedded::Panicked => {
                (StatusCode::INTERNAL_SERVER_ERROR, "the log has the details: journalctl -u alexandria-ingestd")
            }
        };
        Refusal::new(status, self.message()).hint(hint)
    }
}

/// Sets the flag when it is dropped: by the answer's way out, or because the client is gone or its time is up.
struct AbandonOnDrop(Arc<AtomicBool>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Embeds, and makes the answer's text, on a thread that may wait.
pub(super) async fn embed<T: Send + 'static>(
    shared: &Arc<Shared>,
    place: Place,
    texts: Vec<String>,
    too_long: TooLong,
    answer: impl FnOnce(Embedded) -> T + Send + 'static,
) -> Result<T, NotEmbedded> {
    let most = shared.settings.max_texts;
    if texts.len() > most {
        return Err(NotEmbedded::TooMany { given: texts.len(), most });
    }
    let abandoned = Arc::new(AtomicBool::new(false));
    let _guard = AbandonOnDrop(abandoned.clone());
    let shared = shared.clone();
    let embedded = tokio::task::spawn_blocking(move || {
        let embedded = if texts.is_empty() {
            Ok(Embedded { vectors: Vec::new(), tokens: 0 })
        } else {
            (shared.handles.embed)(EmbedTask { texts, too_long, abandoned })
        };
        let answered = embedded.map(answer);
        drop(place);
        answered
    });
    match embedded.await {
        Ok(answered) => answered.map_err(NotEmbedded::Refused),
        Err(_) => Err(NotEmbedded::Panicked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_or_a_list_and_nothing_else() {
        let read = |text: &str| serde_json::from_str::<Texts>(text);
        assert_eq!(read(r#""a""#).unwrap(), Texts { list: vec!["a".into()], one: true });
        assert_eq!(read(r#"["a", "\u010d"]"#).unwrap(), Texts { list: vec!["a".into(), "č".into()], one: false });
        assert_eq!(read("[]").unwrap(), Texts { list: vec![], one: false });
        for ids in ["[1, 2]", "[[1, 2], [3]]", "[-1]", r#"["a", 2]"#] {
            assert!(read(ids).unwrap_err().to_string().contains("send the text itself"), "{ids}");
        }
        for wrong in ["1", "null", "{}", r#"[{"text": "a"}]"#, "[null]", "[true]"] {
            assert!(read(wrong).unwrap_err().to_string().contains("a text"), "{wrong}");
        }
    }

    #[test]
    fn dimensions_are_those_that_there_are() {
        assert_eq!(check_dimensions(None, 384), Ok(()));
        assert_eq!(check_dimensions(Some(384), 384), Ok(()));
        assert!(check_dimensions(Some(-384), 384).unwrap_err().contains("384 dimensions, not -384"));
    }
}
