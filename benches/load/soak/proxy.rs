//! A proxy to the database, which cuts all connections at once.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// It passes bytes on until it is dropped.
pub struct Proxy {
    pub port: u16,
    cut: watch::Sender<()>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port for connections to another one of this machine.
    pub async fn start(target: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (port, cut) = (listener.local_addr()?.port(), watch::Sender::new(()));
        let (mut accepting, cuts) = (JoinSet::new(), cut.subscribe());
        accepting.spawn(accept(listener, (Ipv4Addr::LOCALHOST, target).into(), cuts));
        Ok(Self { port, cut, _accepting: accepting })
    }

    /// Ends every connection, wherever it is: both sides see the end within what they say.
    pub fn cut(&self) {
        self.cut.send_replace(());
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, cuts: watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                connections.spawn(async move {
                    tokio::select! {
                        _ = pass_on(client, target) => {}
                        _ = cuts.changed() => {}
                    }
                });
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pass_on(mut client: TcpStream, target: SocketAddr) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
