//! The service: takes requests, answers them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use serde_json::{Value, json};

use crate::audit::{Audit, Entry};
use crate::faults::{Fault, Faults};
use crate::read::{self, Selection};
use crate::resource::{Resource, Version};
use crate::route::{Options, Route, Target, Verb};
use crate::status::ApiError;
use crate::store::{Id, Store};
use crate::view::{Form, View};
use crate::watch::Watch;
use crate::write::{self, Write};
use crate::{builtin, discovery, object};

/// The body of an answer: one piece, or a stream of lines.
pub type ResponseBody = UnsyncBoxBody<Bytes, Infallible>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// A fault said so: [`Fault::Refused`] or [`Fault::LostAnswer`].
    #[error("the connection was reset by an injected fault")]
    ConnectionLost,
    /// The request's own body broke off.
    #[error("failed to read the body of the request")]
    Body(#[source] BoxError),
}

/// What a request's body may hold at most, as etcd's limit makes it for a real server.
const BODY_LIMIT: usize = 3 << 20;

/// Says what time it is; only written timestamps and ages come from it, waiting is tokio's.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How a server is made.
#[derive(Clone)]
pub struct Builder {
    clock: Clock,
    history: usize,
    first_revision: u64,
    seed: u64,
    bookmark_period: Duration,
    audit_limit: usize,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("history", &self.history)
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemTime::now),
            history: 1000,
            first_revision: 1000,
            seed: 0,
            bookmark_period: Duration::from_mins(1),
            audit_limit: 10_000,
        }
    }
}

impl Builder {
    /// Where timestamps come from; the machine's clock by default.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// How many changes of each kind are remembered; who asks for older ones is told 410. 1000 by default.
    #[must_use]
    pub fn history(mut self, changes: usize) -> Self {
        self.history = changes;
        self
    }

    /// What made-up names and uids start from; the same seed gives the same ones. 0 by default.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How often a quiet watch that asked for it is told the revision. A minute by default, as in Kubernetes.
    #[must_use]
    pub fn bookmark_period(mut self, period: Duration) -> Self {
        self.bookmark_period = period;
        self
    }

    /// How many requests the audit log keeps. 10,000 by default.
    #[must_use]
    pub fn audit_limit(mut self, entries: usize) -> Self {
        self.audit_limit = entries;
        self
    }

    /// A server that holds what a new cluster does: the namespaces `default`, `kube-system`, `kube-public` and
    /// `kube-node-lease`.
    pub fn build(self) -> ApiServer {
        let mut store = Store::new(self.first_revision, self.history, self.seed);
        for resource in builtin::resources() {
            store.register(resource);
        }
        let server = ApiServer {
            inner: Arc::new(Inner {
                store: Mutex::new(store),
                clock: self.clock,
                faults: Faults::new(),
                audit: Audit::new(self.audit_limit),
                bookmark_period: self.bookmark_period,
            }),
        };
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            server.inner.bootstrap_namespace(name);
        }
        server
    }
}

/// The server. Clones are the same one.
#[derive(Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer")
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

impl Default for ApiServer {
    fn default() -> Self {
        Self::new()
    }
}

pub(crate) struct Inner {
    store: Mutex<Store>,
    clock: Clock,
    pub(crate) faults: Faults,
    audit: Audit,
    pub(crate) bookmark_period: Duration,
}

/// What is answered.
enum Answer {
    Json(u16, Value),
    Watch(Box<Watch>),
    Text(&'static str),
}

/// A request without its body's stream.
struct Incoming<'a> {
    headers: &'a HeaderMap,
    body: &'a [u8],
}

impl Incoming<'_> {
    fn header(&self, name: &HeaderName) -> &str {
        let value = self.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl ApiServer {
    /// A server as [`Builder::default`] makes it.
    pub fn new() -> Self {
        Builder::default().build()
    }

    /// Makes one that differs.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// What goes wrong with it.
    pub fn faults(&self) -> Faults {
        self.inner.faults.clone()
    }

    /// What was asked of it.
    pub fn audit(&self) -> Audit {
        self.inner.audit.clone()
    }

    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        self.inner.store().revision()
    }

    /// Forgets all changes before now, as etcd's compaction does: who watches or pages from an older revision is told
    /// 410.
    pub fn compact(&self) {
        self.inner.store().compact();
    }

    /// Answers a request at once: without faults, and without looking at the time but for timestamps. What the service
    /// does after it has read the body and waited.
    pub fn respond(&self, request: &Request<Bytes>) -> Response<ResponseBody> {
        let query = request.uri().query().unwrap_or_default();
        let route = Route::parse(request.uri().path());
        let incoming = Incoming {
            headers: request.headers(),
            body: request.body(),
        };
        let options = Options::parse(query);
        let is_get = request.method() == http::Method::GET;
        let result = match (&route, options) {
            (None, _) => Err(ApiError::no_such_path()),
            (_, Err(error)) => Err(error),
            (Some(Route::Objects(target)), Ok(options)) => match target.verb(request.method(), &options) {
                Some(verb) => self.objects(verb, target, &options, &incoming),
                None => Err(ApiError::method_not_allowed()),
            },
            (Some(_), Ok(_)) if !is_get => Err(ApiError::method_not_allowed()),
            (Some(route), Ok(_)) => self.inner.meta(route),
        };
        let response = respond(result);
        self.record(request, response.status());
        response
    }

    fn record(&self, request: &Request<Bytes>, code: StatusCode) {
        let Some((verb, target)) = about(request) else {
            return;
        };
        let header = |name: &HeaderName| {
            let value = request.headers().get(name);
            let text = value.and_then(|value| value.to_str().ok());
            text.unwrap_or_default().to_owned()
        };
        self.inner.audit.record(Entry {
            verb,
            group: target.group,
            resource: target.plural,
            namespace: target.namespace,
            name: target.name,
            subresource: target.subresource,
            query: request.uri().query().unwrap_or_default().to_owned(),
            content_type: header(&CONTENT_TYPE),
            user_agent: header(&USER_AGENT),
            code: code.as_u16(),
        });
    }

    fn objects(
        &self,
        verb: Verb,
        target: &Target,
        options: &Options,
        incoming: &Incoming<'_>,
    ) -> Result<Answer, ApiError> {
        let mut store = self.inner.store();
        let resource = store
            .resource(&target.group, &target.plural)
            .ok_or_else(ApiError::no_such_path)?;
        let version = resource
            .version(&target.version)
            .ok_or_else(ApiError::no_such_path)?
            .clone();
        check_target(verb, target, &resource, &version)?;
        let accept = incoming.header(&ACCEPT);
        let view = View {
            form: Form::from_accept(accept, &options.include_object)?,
            resource: resource.clone(),
            version: version.clone(),
        };
        let now = self.inner.now();
        match verb {
            Verb::Get => {
                let found = read::get(&store, &resource, target, options)?;
                Ok(Answer::Json(200, view.object(&found, now)))
            }
            Verb::List => {
                let selection = Selection::new(&resource, &version, target, options)?;
                let kind = store.kind(&Store::id_of(&resource));
                let kind = kind.ok_or_else(ApiError::no_such_path)?;
                let (page, metadata) = read::list(&store, kind, &selection, options)?;
                let page: Vec<&Value> = page.iter().map(|object| &**object).collect();
                Ok(Answer::Json(200, view.list(&page, &metadata, now)))
            }
            Verb::Watch => {
                let selection = Selection::new(&resource, &version, target, options)?;
                let kind = store.kind(&Store::id_of(&resource));
                let kind = kind.ok_or_else(ApiError::no_such_path)?;
                let server = self.inner.clone();
                let watch = Watch::new(server, &store, kind, target.clone(), view, selection, options)?;
                Ok(Answer::Watch(Box::new(watch)))
            }
            _ => {
                let agent = incoming.header(&USER_AGENT);
                let write = Write {
                    store: &mut store,
                    resource,
                    version,
                    target,
                    options,
                    now: timestamp(now),
                    after: &|seconds| timestamp(now + Duration::from_secs(seconds.unsigned_abs())),
                    user_agent: agent.split('/').next().unwrap_or_default(),
                    content_type: incoming.header(&CONTENT_TYPE),
                };
                let (code, outcome) = write::perform(write, verb, incoming.body)?;
                let shown = match outcome {
                    write::Outcome::Object(stored) => view.object(&stored, now),
                    write::Outcome::List(all) => {
                        let all: Vec<&Value> = all.iter().map(|object| &**object).collect();
                        view.list(&all, &json!({}), now)
                    }
                    write::Outcome::Other(value) => value,
                };
                Ok(Answer::Json(code, shown))
            }
        }
    }

    async fn serve<B>(self, request: Request<B>) -> Result<Response<ResponseBody>, Unanswered>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let body = match Limited::new(body, BODY_LIMIT).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                let message = format!("Request entity too large: limit is {BODY_LIMIT}");
                return Ok(respond(Err(ApiError::new(413, message))));
            }
            Err(error) => return Err(Unanswered::Body(error)),
        };
        let request = Request::from_parts(parts, body);
        let fault = self.fault(&request).await;
        match fault {
            Some(Fault::Error(error)) => {
                let response = respond(Err(error));
                self.record(&request, response.status());
                return Ok(response);
            }
            Some(Fault::Refused) => return Err(Unanswered::ConnectionLost),
            Some(Fault::LostAnswer) => {
                self.respond(&request);
                return Err(Unanswered::ConnectionLost);
            }
            None => {}
        }
        Ok(self.respond(&request))
    }

    /// Waits as the faults say; returns what goes wrong.
    async fn fault(&self, request: &Request<Bytes>) -> Option<Fault> {
        let faults = &self.inner.faults;
        let about = about(request);
        if let Some((verb, target)) = &about {
            let latency = faults.latency(*verb, target);
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
        }
        let mut frozen = faults.subscribe();
        // The sender lives in `faults`, which this borrows.
        let _ = frozen.wait_for(|frozen| !frozen).await;
        let (verb, target) = about?;
        faults.next(verb, &target)
    }
}

impl Inner {
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> SystemTime {
        (self.clock)()
    }

    fn bootstrap_namespace(&self, name: &str) {
        let mut store = self.store();
        let uid = store.generator.uid();
        let mut namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "uid": uid, "creationTimestamp": timestamp(self.now())},
        });
        write::default_namespace(&mut namespace);
        let id = Id {
            kind: "namespaces".to_owned(),
            key: object::name(&namespace).to_owned(),
        };
        store.put(&id, namespace);
    }

    fn meta(&self, route: &Route) -> Result<Answer, ApiError> {
        let store = self.store();
        let value = match route {
            Route::Health => return Ok(Answer::Text("ok")),
            Route::Version => discovery::version(),
            Route::CoreVersions => discovery::core_versions(),
            Route::Groups => discovery::groups(&store),
            Route::Group(name) => discovery::one_group(&store, name)?,
            Route::Resources { group, version } => discovery::resources(&store, group, version)?,
            Route::Objects(_) => return Err(ApiError::no_such_path()),
        };
        Ok(Answer::Json(200, value))
    }
}

/// What a request for objects does, and to which.
fn about(request: &Request<Bytes>) -> Option<(Verb, Target)> {
    let Some(Route::Objects(target)) = Route::parse(request.uri().path()) else {
        return None;
    };
    let options = Options::parse(request.uri().query().unwrap_or_default()).unwrap_or_default();
    Some((target.verb(request.method(), &options)?, target))
}

/// Whether there is such a path, and such a verb on it.
fn check_target(verb: Verb, target: &Target, resource: &Resource, version: &Version) -> Result<(), ApiError> {
    let in_namespace = !target.namespace.is_empty();
    let one = !target.name.is_empty();
    if in_namespace != resource.traits.namespaced {
        if in_namespace || one {
            return Err(ApiError::no_such_path());
        }
        if matches!(verb, Verb::Create | Verb::DeleteCollection) {
            return Err(ApiError::method_not_allowed());
        }
    }
    let is_core = |plural: &str| resource.group.is_empty() && resource.plural == plural;
    let allowed = match target.subresource.as_str() {
        "" => !(one && verb == Verb::Create),
        "status" if version.status => matches!(verb, Verb::Get | Verb::Update | Verb::Patch),
        "binding" | "eviction" if is_core("pods") => verb == Verb::Create,
        "finalize" if is_core("namespaces") => verb == Verb::Update,
        _ => return Err(ApiError::no_such_path()),
    };
    if allowed {
        Ok(())
    } else {
        Err(ApiError::method_not_allowed())
    }
}

/// To the second, as the API writes it.
fn timestamp(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn respond(result: Result<Answer, ApiError>) -> Response<ResponseBody> {
    let (code, kind, body) = match result {
        Ok(Answer::Json(code, value)) => {
            let code = StatusCode::from_u16(code).unwrap_or_default();
            (code, "application/json", whole(value.to_string()))
        }
        Ok(Answer::Text(text)) => (StatusCode::OK, "text/plain", whole(text)),
        Ok(Answer::Watch(watch)) => (StatusCode::OK, "application/json", stream(*watch)),
        Err(error) => (
            error.http_status(),
            "application/json",
            whole(error.to_status().to_string()),
        ),
    };
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn whole(text: impl Into<Bytes>) -> ResponseBody {
    Full::new(text.into()).boxed_unsync()
}

fn stream(watch: Watch) -> ResponseBody {
    let lines = futures_util::stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((line, watch))
    });
    StreamBody::new(lines.map(|line| Ok(Frame::data(line)))).boxed_unsync()
}

impl<B> tower_service::Service<Request<B>> for ApiServer
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Unanswered;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Unanswered>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unanswered>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Box::pin(self.clone().serve(request))
    }
}
