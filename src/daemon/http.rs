//! The HTTP listener as the daemon has it: its settings and its token from the configuration, and the embedder behind it.
//! Requests of other machines are interactive: they go before the library's books, and never starve them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::DaemonError;
use super::service::Service;
use crate::config::{Config, ConfigError};
use crate::control::http::{
    EmbedRefusal, EmbedTask, Embedded, HttpHandles, HttpServer, HttpSettings, ModelCard, TooLong,
};
use crate::control::server::ControlHandles;
use crate::embed::{EmbedError, EmbedderHandle, Priority};

/// Binds the listener, where one is configured.
pub(super) fn bind(config: &Config) -> Result<Option<HttpServer>, DaemonError> {
    let http = &config.http;
    if http.listen.is_empty() {
        return Ok(None);
    }
    let listen: std::net::SocketAddr = http.listen.parse().map_err(|_| ConfigError::BadValue {
        key: "http.listen",
        reason: "must be ADDRESS:PORT, e.g. 0.0.0.0:8765".into(),
    })?;
    let token = config.http_token()?;
    if let Some(warning) = token.as_ref().and_then(|token| token.warning.as_ref()) {
        tracing::warn!("{warning}");
    }
    if token.is_none() && !listen.ip().is_loopback() {
        tracing::warn!(
            "http.listen is {listen} and there is no token: every machine that reaches it can search the library and use \
             the model; set http.token_file, or listen on 127.0.0.1"
        );
    }
    let settings = HttpSettings {
        listen,
        token: token.map(|token| token.text),
        max_texts: http.max_texts,
        max_body: http.max_body_mib << 20,
        max_requests: http.max_requests,
        max_connections: http.max_connections,
        timeout: Duration::from_secs_f64(http.timeout_seconds),
    };
    let failed = format!("http.listen: {listen} cannot be listened on (another program's, or not this machine's?)");
    let server = HttpServer::bind(settings).map_err(DaemonError::io(failed))?;
    tracing::info!("listening on http://{} for other machines", server.address());
    Ok(Some(server))
}

pub(super) fn handles(service: &Arc<Service>, control: ControlHandles) -> HttpHandles {
    let info = service.parts.embedder.info();
    let model = ModelCard {
        id: info.id.clone(),
        name: info.name.clone(),
        dimension: info.dimension,
        max_tokens: info.max_tokens,
    };
    let embedder = service.parts.embedder.clone();
    HttpHandles { control, model, embed: Arc::new(move |task| embed(&embedder, task)) }
}

/// Tokenises on the caller's thread, and waits for the vectors there.
fn embed(embedder: &EmbedderHandle, task: EmbedTask) -> Result<Embedded, EmbedRefusal> {
    let tokenizer = embedder.tokenizer();
    let limit = embedder.info().max_tokens;
    let mut texts = Vec::with_capacity(task.texts.len());
    let mut tokens = 0;
    for (index, text) in task.texts.into_iter().enumerate() {
        if task.abandoned.load(Ordering::Relaxed) {
            return Err(EmbedRefusal::Unavailable(EmbedError::Abandoned.to_string()));
        }
        let mut ids = tokenizer.encode(&text);
        if ids.0.len() > limit {
            match task.too_long {
                TooLong::Refuse => return Err(EmbedRefusal::TooLong { index, tokens: ids.0.len(), limit }),
                TooLong::CutEnd => ids.cut_end(limit, tokenizer.special_tokens()),
                TooLong::CutStart => ids.cut_start(limit, tokenizer.special_tokens()),
            }
        }
        tokens += ids.0.len();
        texts.push(ids);
    }
    match embedder.embed_ids_unless(texts, Priority::Interactive, Some(task.abandoned)) {
        Ok(vectors) => Ok(Embedded { vectors, tokens }),
        Err(error @ (EmbedError::Stopped | EmbedError::OutOfMemory(_) | EmbedError::Abandoned)) => {
            Err(EmbedRefusal::Unavailable(error.to_string()))
        }
        Err(error) => {
            tracing::warn!("texts of an HTTP request could not be embedded: {error}");
            Err(EmbedRefusal::Failed(error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::embed::FakeEmbedder;

    fn task(text: &str, too_long: TooLong) -> EmbedTask {
        EmbedTask { texts: vec!["short".into(), text.into()], too_long, abandoned: Arc::default() }
    }

    #[test]
    fn a_long_text_is_refused_by_its_number_or_cut_where_asked() {
        let embedder = EmbedderHandle::spawn(Box::new(FakeEmbedder::default())).unwrap();
        let words: Vec<String> = (0..400).map(|word| format!("word{word}")).collect();
        let long = words.join(" ");
        let refused = embed(&embedder, task(&long, TooLong::Refuse)).unwrap_err();
        assert_eq!(refused, EmbedRefusal::TooLong { index: 1, tokens: 402, limit: 258 });
        for (cut, kept) in [(TooLong::CutEnd, &words[..256]), (TooLong::CutStart, &words[144..])] {
            let answer = embed(&embedder, task(&long, cut)).unwrap();
            assert_eq!(answer.tokens, 3 + 258);
            assert_eq!(answer.vectors, embed(&embedder, task(&kept.join(" "), TooLong::Refuse)).unwrap().vectors);
        }
    }

    #[test]
    fn what_nobody_waits_for_is_not_embedded() {
        let embedder = EmbedderHandle::spawn(Box::new(FakeEmbedder::default())).unwrap();
        let before = embedder.counters().texts;
        let mut given_up = task("text", TooLong::Refuse);
        given_up.abandoned = Arc::new(AtomicBool::new(true));
        assert!(matches!(embed(&embedder, given_up), Err(EmbedRefusal::Unavailable(_))));
        assert_eq!(embedder.counters().texts, before);
    }
}
