"""The contract, compiled: it checks requests and answers and knows nothing about resources or the database.

Read in this order: bundle (the document), translate and coerce (one schema), operations (one operation),
parameters, bodies and responses (the three checks), middleware (the rules of HTTP), endpoint, which commits,
resolver (which function), bridge (from the event loop to Flask and back).
"""
