# One model or several, baked into TensorFlow Serving. build.sh and build_ensemble.sh lay out the context and
# pass the arguments; there are no defaults here, since the scripts share theirs in lib/settings.sh.
ARG TF_SERVING_IMAGE
ARG MODE
ARG MODEL_NAME
# Below FROM the base's environment hides an argument of the same name, and TensorFlow Serving's sets MODEL_NAME.
ARG BAKED_MODE=${MODE}
ARG BAKED_MODEL_NAME=${MODEL_NAME}
FROM ${TF_SERVING_IMAGE}

COPY entrypoint.sh /usr/local/bin/tfserving-entrypoint
COPY healthcheck.sh /usr/local/bin/tfserving-healthcheck

# A number, so that Kubernetes can check runAsNonRoot. No user of that number has to exist.
USER 65532:65532
WORKDIR /

# The check has a deadline of its own below this timeout. A success ends the start period, so that a long one
# costs nothing and leaves time for large models and their warmup.
HEALTHCHECK --interval=5s --timeout=10s --start-period=300s --retries=3 CMD ["tfserving-healthcheck"]
ENTRYPOINT ["tfserving-entrypoint"]
EXPOSE 8500 8501

ARG TF_SERVING_IMAGE
ARG BAKED_MODE
ARG BAKED_MODEL_NAME
ARG MODELS
ENV MODE="${BAKED_MODE}" \
    MODEL_NAME="${BAKED_MODEL_NAME}" \
    MODEL_BASE_PATH="/models" \
    DRAIN_SECONDS="0"
LABEL org.opencontainers.image.title="TensorFlow Serving with ${MODELS}" \
      org.opencontainers.image.description="Serves ${MODELS} over gRPC (8500) and REST (8501)" \
      org.opencontainers.image.base.name="${TF_SERVING_IMAGE}" \
      tfserving.mode="${BAKED_MODE}" \
      tfserving.model_name="${BAKED_MODEL_NAME}" \
      tfserving.models="${MODELS}"

# Last, so that a new version of a model rebuilds one layer.
COPY models/ /models/
