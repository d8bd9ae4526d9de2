"""Everything that knows HTTP: one module per tag of the contract, and the verbs that these modules share."""

import warnings

# Connexion 3.3.0 imports Starlette's test client, which nobody uses; Starlette warns of that at each start.
warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
