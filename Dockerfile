# TensorFlow Serving with one model, or a multi-model image. build.sh and build_ensemble.sh prepare the context and
# pass the arguments, which have no defaults here: lib/settings.sh has them.
ARG TF_SERVING_IMAGE
ARG MODE
ARG MODEL_NAME
# After FROM, an environment variable of the base image hides an argument of the same name, and tensorflow/serving
# sets MODEL_NAME.
ARG BAKED_MODE=${MODE}
ARG BAKED_MODEL_NAME=${MODEL_NAME}
FROM ${TF_SERVING_IMAGE}

COPY entrypoint.sh /usr/local/bin/tfserving-entrypoint
COPY healthcheck.sh /usr/local/bin/tfserving-healthcheck
COPY server_config.sh /usr/local/bin/

# A number, so that Kubernetes can verify runAsNonRoot. The user does not have to exist.
USER 65532:65532
WORKDIR /

# build.sh replaces the interval and the start period if they are set: builders do not expand variables here.
# Interval x retries is the time until a draining container is unhealthy; DRAIN_SECONDS has to be longer. The check's
# own time limit is shorter than this timeout. The start period is over after the first success, so a long one costs
# nothing and gives large models time to load and warm up.
HEALTHCHECK --interval=3s --timeout=10s --start-period=300s --retries=2 CMD ["tfserving-healthcheck"]
ENTRYPOINT ["tfserving-entrypoint"]
EXPOSE 8500 8501

ARG TF_SERVING_IMAGE
ARG BAKED_MODE
ARG BAKED_MODEL_NAME
ARG MODELS
ENV MODE="${BAKED_MODE}" \
    MODEL_NAME="${BAKED_MODEL_NAME}" \
    MODEL_BASE_PATH="/models" \
    DRAIN_SECONDS="0" \
    MAX_CONNECTION_AGE_SECONDS="0" \
    MAX_CONNECTION_AGE_GRACE_SECONDS=""
LABEL org.opencontainers.image.title="TensorFlow Serving with ${MODELS}" \
      org.opencontainers.image.description="Serves ${MODELS} over gRPC (8500) and REST (8501)" \
      org.opencontainers.image.base.name="${TF_SERVING_IMAGE}" \
      tfserving.mode="${BAKED_MODE}" \
      tfserving.model_name="${BAKED_MODEL_NAME}" \
      tfserving.models="${MODELS}"

# Last, so that a new version of a model rebuilds only this layer.
COPY models/ /models/
