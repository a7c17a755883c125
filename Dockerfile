# vinops in a container. The first argument is the role. Build: docker build -t vinops .
#
# The program is PID 1 and needs no init: it handles SIGTERM itself (drain, release, exit), and its roles start no
# processes. Secrets are files (NAME_FILE), never build arguments.

FROM rust:1.95-bookworm AS build
WORKDIR /build
# Not the whole folder: with rust-toolchain.toml rustup would download what the image has, and tests change more often.
COPY Cargo.toml Cargo.lock SECURITY.md ./
COPY .sqlx .sqlx
COPY migrations migrations
COPY src src
COPY workers workers
# Queries are checked against .sqlx: no database is needed to build.
RUN SQLX_OFFLINE=true cargo build --release --locked --bin vinops

FROM debian:bookworm-slim
# The feed's certificate is checked against the system's certificates. Time zones and all else are in the program.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/data/vinops --shell /usr/sbin/nologin vinops \
    && install -d -o vinops -g vinops /var/data/vinops
COPY --from=build /build/target/release/vinops /usr/local/bin/vinops
# A numeric user, so that an orchestrator can check that it is not root.
USER 10001:10001
EXPOSE 9464
ENTRYPOINT ["vinops"]
CMD ["--help"]
