#!/bin/bash
# Without exec, as in the official image: bash is PID 1 and SIGTERM does not reach the server.
tensorflow_model_server --port=8500 --rest_api_port=8501 \
  --model_name="${MODEL_NAME}" --model_base_path="${MODEL_BASE_PATH}/${MODEL_NAME}" "$@"
