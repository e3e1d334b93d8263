# Targets: greeter and gateway, to run in production, and dev, the sources of either for `skaffold dev`.

FROM node:24-bookworm-slim AS manifests
WORKDIR /app
COPY package.json package-lock.json .npmrc ./

# The optional packages are Node itself, which the images have anyhow. The rest that goes is never read: types,
# source maps, and all of Swagger UI but the two files that /docs serves, with their licences.
FROM manifests AS dependencies
RUN npm ci --omit=dev --omit=optional --loglevel=error \
  && find node_modules -type f \( -name '*.map' -o -name '*.ts' -o -name '*.[cm]ts' \) -delete \
  && find node_modules/swagger-ui-dist -type f ! -name swagger-ui.css ! -name 'swagger-ui-bundle.js*' \
    ! -name package.json ! -name LICENSE ! -name NOTICE -delete

FROM manifests AS build
COPY deploy/strip-types.ts deploy/
COPY proto proto
COPY services services
RUN export NODE_NO_WARNINGS=1 \
  && node deploy/strip-types.ts /build/greeter services/greeter/main.ts \
  && node deploy/strip-types.ts /build/gateway services/gateway/main.ts

# No shell, no npm. Files belong to root, the process is 65532, and node is process 1: SIGTERM reaches it.
FROM gcr.io/distroless/nodejs24-debian12:nonroot AS production
ENV NODE_ENV=production
# The base's user would own the folder.
USER 0:0
WORKDIR /app
COPY LICENSE .
COPY --from=dependencies /app/node_modules node_modules
USER 65532:65532
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.version=$VERSION \
  org.opencontainers.image.revision=$REVISION \
  org.opencontainers.image.licenses=Apache-2.0 \
  org.opencontainers.image.base.name=gcr.io/distroless/nodejs24-debian12:nonroot

FROM production AS greeter
COPY --from=build /build/greeter .
LABEL org.opencontainers.image.title=greeter \
  org.opencontainers.image.description="A gRPC service on Kubernetes: health, reflection, drain, metrics, traces"
EXPOSE 50051 9090
ENTRYPOINT ["/nodejs/bin/node", "services/greeter/main.js"]

FROM production AS gateway
COPY --from=build /build/gateway .
LABEL org.opencontainers.image.title=gateway \
  org.opencontainers.image.description="REST, JSON and streams for any gRPC service, balanced over its replicas"
EXPOSE 8080 9090
ENTRYPOINT ["/nodejs/bin/node", "services/gateway/main.js"]

# `skaffold dev` unpacks changed files here as the pod's user, so that all of it must be that user's. tar has to write into
# the files that there are, because node --watch loses sight of one that is replaced. No npm: it would be 40 MB.
FROM debian:bookworm-slim AS dev
COPY --from=manifests /usr/local/bin/node /usr/local/bin/
WORKDIR /app
RUN chown 65532:65532 .
COPY --from=dependencies /app/node_modules node_modules
COPY --from=manifests --chown=65532:65532 /app/package.json .
COPY --chown=65532:65532 proto proto
COPY --chown=65532:65532 services services
USER 65532:65532
ARG PROGRAM
ENV PROGRAM=$PROGRAM TAR_OPTIONS=--overwrite NODE_COMPILE_CACHE=/tmp/compiled
EXPOSE 8080 9090 9229 50051
ENTRYPOINT ["/bin/sh", "-c", "exec node --watch --watch-preserve-output $NODE_INSPECT services/$PROGRAM/main.ts"]
