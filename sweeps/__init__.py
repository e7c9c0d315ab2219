from selfsup.pipelines.auth import use_token

use_token()  # before any module here imports ray
