//! Networks of all projects, and containers that join and leave them.

use crate::app::options::{EndpointOptions, NetworkOptions};
use crate::app::{App, AppError};
use crate::control::{NetworkChange, Reply, Request};
use crate::network::{NetworkError, Networks};
use crate::spec::ContainerState;
use crate::spec::container::Attachment;
use crate::spec::network::Driver;
use crate::ui::tables::NetworkRow;

impl App {
    /// The networks that there are.
    ///
    /// # Errors
    /// Unreadable state.
    pub fn networks(&self) -> Result<Vec<NetworkRow>, NetworkError> {
        let records = Networks::new(self.roots.data.join("networks")).list()?.into_iter();
        let mut rows: Vec<NetworkRow> = records
            .filter(|record| record.ready)
            .map(|record| NetworkRow {
                driver: match &record.driver {
                    Driver::Bridge(_) => "bridge",
                    Driver::Shared(shared) => shared.kind.driver(),
                },
                subnets: record.subnets.iter().map(|subnet| subnet.subnet.to_string()).collect(),
                containers: record.endpoints.into_values().map(|endpoint| endpoint.container).collect(),
                id: record.id,
                name: record.name,
                project: record.project,
                internal: record.internal,
                labels: record.labels,
            })
            .collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(rows)
    }

    /// Puts a container on one more network.
    ///
    /// # Errors
    /// No such container or network, an address that it cannot have.
    pub fn join_network(&self, options: NetworkOptions, endpoint: EndpointOptions) -> Result<(), AppError> {
        let EndpointOptions { aliases, ipv4, ipv6, link_local, gw_priority } = endpoint;
        let NetworkOptions { network, container, index } = options;
        let attachment = Attachment { network, aliases, ipv4, ipv6, link_local, gw_priority, ..Attachment::default() };
        self.change_networks(&container, index, NetworkChange::Join(attachment))
    }

    /// Takes a container off a network.
    ///
    /// # Errors
    /// No such container or network.
    pub fn leave_network(&self, options: NetworkOptions) -> Result<(), AppError> {
        let NetworkOptions { network, container, index } = options;
        self.change_networks(&container, index, NetworkChange::Leave { network })
    }

    fn change_networks(&self, meant: &str, index: Option<u32>, change: NetworkChange) -> Result<(), AppError> {
        let (project, _) = self.locate()?;
        let mut containers = self.observe(&project, &[])?.containers;
        containers.sort_by_key(|one| one.number);
        let wanted = |one: &&ContainerState| {
            one.service.name == meant && one.number > 0 && index.is_none_or(|index| index == one.number)
        };
        let found = containers.iter().find(|one| one.name == meant).or_else(|| containers.iter().find(wanted));
        let Some(found) = found else {
            return Err(AppError::Usage(format!("project `{project}` has no container or service `{meant}`")));
        };
        let mut connection = self.session(&project).connect_or_start()?;
        let talking = || "change the container's networks".to_owned();
        let request = Request::Network { container: found.name.clone(), change };
        connection.send(&request).map_err(AppError::io(talking()))?;
        match connection.receive().map_err(AppError::io(talking()))? {
            Some(Reply::Done) => Ok(()),
            Some(Reply::Failed { failures }) => Err(AppError::Failed(failures)),
            _ => Err(AppError::Usage("the supervisor ended before it was done; see `network ls`".to_owned())),
        }
    }
}
