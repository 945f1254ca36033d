//! `build --print`: the same builds for `docker buildx bake`.

use serde_json::{Map, Value, json};

use crate::app::build::request::image_name;
use crate::app::build::{BuildOptions, Builds};
use crate::app::{App, AppError};
use crate::build::Secret;
use crate::model::Project;

impl App {
    /// The builds as a bake file, as docker compose writes it.
    ///
    /// # Errors
    /// As [`App::prepare_build`].
    pub fn bake(&self, builds: &Builds, options: &BuildOptions, push: bool) -> Result<Value, AppError> {
        let project = self.load(&[])?.project;
        let names: Vec<_> = builds.services().collect();
        let targets = builds.planned.iter().filter_map(|one| {
            let target = target(&project, builds, &one.service, options, push)?;
            Some((one.service.clone(), target))
        });
        let targets: Map<String, Value> = targets.collect();
        Ok(json!({"group": {"default": {"targets": names}}, "target": targets}))
    }
}

fn target(project: &Project, builds: &Builds, name: &str, options: &BuildOptions, push: bool) -> Option<Value> {
    let build = project.services.get(name)?.build.as_ref()?;
    let planned = builds.planned.iter().find(|one| one.service == name)?;
    let request = &planned.request;
    let mut target = Map::new();
    let mut put = |key: &str, value: Value| {
        let empty = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !empty {
            target.insert(key.to_owned(), value);
        }
    };
    put("context", json!(build.context));
    let contexts = build.additional_contexts.iter().map(|(key, value)| {
        let value = value.strip_prefix("service:").map_or_else(|| value.clone(), |other| format!("target:{other}"));
        (key.clone(), Value::String(value))
    });
    put("contexts", Value::Object(contexts.collect()));
    put("dockerfile-inline", json!(build.dockerfile_inline));
    if build.dockerfile_inline.is_none() {
        let file = build.dockerfile.as_deref().filter(|file| !file.is_empty()).unwrap_or("Dockerfile");
        let remote = build.context.contains("://") || build.context.starts_with("git@");
        let path = std::path::Path::new(&build.context).join(file).to_string_lossy().into_owned();
        put("dockerfile", json!(if remote { file.to_owned() } else { path }));
    }
    put("args", json!(request.args));
    put("labels", json!(request.labels));
    let tags = build.tags.iter().cloned().chain([image_name(project, name)]);
    put("tags", json!(tags.collect::<Vec<_>>()));
    put("cache-from", json!(build.cache_from));
    put("cache-to", json!(build.cache_to));
    put("target", json!(build.target));
    let secrets = request.secrets.iter().map(|(id, secret)| match secret {
        Secret::File(path) => format!("id={id},type=file,src={}", path.display()),
        Secret::Value(_) => format!("id={id},type=env,env={}", secret_variable(project, name, id)),
    });
    put("secret", json!(secrets.collect::<Vec<_>>()));
    let agents = build.ssh.iter().map(|(id, path)| format!("{id}={}", path.as_deref().unwrap_or_default()));
    put("ssh", json!(agents.chain(options.ssh.iter().cloned()).collect::<Vec<_>>()));
    put("platforms", json!(build.platforms));
    put("pull", json!(planned.pull));
    put("no-cache", json!(request.no_cache));
    put("network", json!(build.network));
    put("shm-size", json!(request.shm_size.map(|size| size.to_string())));
    let limits = build.ulimits.iter().map(|(name, limit)| match limit.soft == limit.hard {
        true => format!("{name}={}", limit.soft),
        false => format!("{name}={}:{}", limit.soft, limit.hard),
    });
    put("ulimits", json!(limits.collect::<Vec<_>>()));
    put("entitlements", json!(build.entitlements));
    let hosts = request.extra_hosts.iter().map(|(host, address)| (host.clone(), Value::String(address.clone())));
    put("extra-hosts", Value::Object(hosts.collect()));
    put("output", json!([if push && planned.pushed { "type=image,push=true" } else { "type=docker" }]));
    Some(Value::Object(target))
}

/// The variable that a secret's value comes from.
fn secret_variable(project: &Project, service: &str, id: &str) -> String {
    let build = project.services.get(service).and_then(|service| service.build.as_ref());
    let named = build.and_then(|build| {
        build.secrets.iter().find(|one| one.target.as_deref().unwrap_or(&one.source) == id).map(|one| &one.source)
    });
    let secret = named.and_then(|source| project.secrets.get(source));
    secret.and_then(|secret| secret.environment.clone()).unwrap_or_default()
}
