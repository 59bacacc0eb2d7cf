"""The embedded server: answers as tensorflow_model_server does, in Python with TensorFlow's own runtime.

A source says which versions should be served, a pure policy decides one step, the manager's owner thread
carries it out, and pins keep a version until its calls have finished. One service without transport answers;
gRPC and REST are codecs over it. TensorFlow is imported by `saved_model` alone.
"""
