"""A manager's addresses about what the record holds. Below projects/<slug>/."""

from django.urls import path

from feedback.pages import corpus, demonstrations, disagreements, overview, ratings, rule_drafts, rules, snapshots

app_name = "feedback"

urlpatterns = [
    path("", overview.overview, name="overview"),
    path("requests/<int:pk>/again/", overview.try_again, name="try_again"),
    path("demonstrations/", demonstrations.open_or_close, name="open_demonstrations"),
    path("corpus/", corpus.corpus, name="corpus"),
    path("corpus/evidence/", corpus.search_here, name="search_corpus"),
    path("corpus/<int:pk>/", corpus.document, name="document"),
    path("corpus/<int:pk>/keep/", corpus.keep, name="keep_document"),
    path("ratings/", ratings.ratings, name="ratings"),
    path("ratings/add/", ratings.add_set, name="add_scale_set"),
    path("ratings/<slug:key>/", ratings.change_set, name="change_scale_set"),
    path("ratings/<slug:key>/<slug:scale>/", ratings.scale, name="scale"),
    path("ratings/<slug:key>/<slug:scale>/asked/", ratings.turn, name="turn_scale"),
    path("snapshots/", snapshots.make, name="make_snapshot"),
    path("snapshots/<int:pk>/download/", snapshots.download, name="download_snapshot"),
    path("rules/", rules.rules, name="rules"),
    path("rules/differing/", disagreements.differing, name="rule_disagreements"),
    path("rules/differing/<int:pk>/<slug:key>/", disagreements.ask_again, name="judge_again"),
    path("rules/policy/", rules.choose_policy, name="choose_probed_policy"),
    path("rules/rule/<slug:key>/", rules.rule, name="rule"),
    path("rules/versions/", rules.versions, name="rule_versions"),
    path("rules/versions/<int:number>/", rules.version, name="rule_version"),
    path("rules/draft/", rule_drafts.draft, name="rule_draft"),
    path("rules/draft/open/", rule_drafts.open_draft, name="open_rule_draft"),
    path("rules/draft/add/", rule_drafts.add_rule, name="add_rule"),
    path("rules/draft/rule/<slug:key>/", rule_drafts.edit_rule, name="edit_rule"),
    path("rules/draft/rule/<slug:key>/order/", rule_drafts.change_order, name="move_rule"),
    path("rules/draft/rule/<slug:key>/remove/", rule_drafts.remove_rule, name="remove_rule"),
    path("rules/draft/rule/<slug:key>/back/", rule_drafts.bring_back, name="bring_back_rule"),
    path("rules/draft/compare/", rule_drafts.compare, name="compare_rules"),
    path("rules/draft/discard/", rule_drafts.discard, name="discard_rules"),
]
