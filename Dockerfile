# vinops in a container: one program, whose first argument is its role. Build: docker build -t vinops .
#
# The program is PID 1 and needs no init beside it: it handles SIGTERM itself (drain, give back, leave) and its roles
# start no processes. Secrets come as files (NAME_FILE), never as build arguments.

FROM rust:1.95-bookworm AS build
WORKDIR /build
# Not the whole folder: rust-toolchain.toml would have rustup fetch what the image has, and tests change more often.
COPY Cargo.toml Cargo.lock SECURITY.md ./
COPY .sqlx .sqlx
COPY migrations migrations
COPY src src
COPY workers workers
# Queries are checked against .sqlx: no database is needed to build.
RUN SQLX_OFFLINE=true cargo build --release --locked --bin vinops

FROM debian:bookworm-slim
# The feed's certificate is checked against the system's; the time zones and everything else are in the program.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/data/vinops --shell /usr/sbin/nologin vinops \
    && install -d -o vinops -g vinops /var/data/vinops
COPY --from=build /build/target/release/vinops /usr/local/bin/vinops
# By number, so that an orchestrator can tell that it is not root.
USER 10001:10001
EXPOSE 9464
ENTRYPOINT ["vinops"]
CMD ["--help"]
