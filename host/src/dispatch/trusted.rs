//! What one plugin wants to run and what it runs, as the trust policy sees them.
//!
//! A judgement holds until the policy changes, and then what runs is judged anew like everything else: the last good one is
//! no way around a policy.

use super::{
    Shared,
    signatures::{self, Asker, Signatures},
};
use crate::{
    catalog::{Desired, Source},
    names::Digest,
    source,
    trust::{Approval, Image, Origin, Pin, Repository, Subject, TrustError},
};

#[derive(Clone)]
struct Judged {
    subject: Subject,
    /// Of an image: as whom its signatures are asked for.
    asker: Option<Asker>,
    approval: Approval,
}

#[derive(Default)]
pub struct Trusted {
    /// What was allowed to be loaded the last time.
    candidate: Option<Judged>,
    running: Option<Judged>,
}

impl Trusted {
    /// Whether this component may be loaded. `image`: what it was in its registry, if it came from one.
    pub async fn judge(
        &mut self,
        shared: &Shared,
        desired: &Desired,
        component: Digest,
        image: Option<source::Image>,
    ) -> Result<Approval, TrustError> {
        if let Some(approval) = shared.trust.without_policy() {
            return Ok(approval);
        }
        let subject = self.subject(shared, desired, component, image.as_ref()).await?;
        let asker = image.and_then(|image| Asker::of(desired, &image));
        let before = self.known().find(|known| known.subject == subject).map(|known| known.approval.clone());
        let approval = judge(shared, &subject, asker.as_ref(), before.as_ref()).await;
        self.candidate = approval.as_ref().ok().map(|approval| Judged { subject, asker, approval: approval.clone() });
        approval
    }

    /// What was judged last is what runs.
    pub fn started(&mut self) {
        self.running = self.candidate.clone();
    }

    /// Whether what runs may go on. If not, it is forgotten: to run again it must be judged again.
    pub async fn may_go_on(&mut self, shared: &Shared) -> Result<(), TrustError> {
        let Some(running) = &mut self.running else { return Ok(()) };
        match judge(shared, &running.subject, running.asker.as_ref(), Some(&running.approval)).await {
            Ok(approval) => running.approval = approval,
            Err(refused) => {
                self.forget();
                return Err(refused);
            }
        }
        Ok(())
    }

    pub fn forget(&mut self) {
        *self = Self::default();
    }

    fn known(&self) -> impl Iterator<Item = &Judged> {
        [&self.candidate, &self.running].into_iter().flatten()
    }

    async fn subject(
        &self,
        shared: &Shared,
        desired: &Desired,
        component: Digest,
        image: Option<&source::Image>,
    ) -> Result<Subject, TrustError> {
        let origin = match (image, &desired.source) {
            (Some(image), _) => Origin::Image(self.image(shared, image, component).await?),
            (None, Source::File(file)) => Origin::File(file.clone()),
            (None, Source::ConfigMap(map)) => Origin::ConfigMap(map.name.clone()),
            // An image that nobody knows the manifest of: no document, so nothing that could be signed.
            (None, Source::Oci(oci)) => {
                Origin::Image(Image::new(&oci.image.registry, &oci.image.repository, &[[0_u8; 0]; 0], component)?)
            }
        };
        Ok(Subject { namespace: desired.plugin.namespace.clone(), origin, pin: pin(desired, component, image), component })
    }

    /// The documents are read once: what was proven of digests stays true.
    async fn image(&self, shared: &Shared, image: &source::Image, component: Digest) -> Result<Image, TrustError> {
        let reference = &image.pinned;
        let same = |known: &Image| {
            (&known.registry, &known.repository) == (&reference.registry, &reference.repository)
                && known.digests().first() == Some(&image.manifest)
        };
        let proven = self.known().find_map(|known| match &known.subject.origin {
            Origin::Image(known_image) if known.subject.component == component && same(known_image) => Some(known_image.clone()),
            _ => None,
        });
        match proven {
            Some(image) => Ok(image),
            None => {
                let documents = signatures::documents(&shared.oci, image).await;
                Image::new(&reference.registry, &reference.repository, &documents, component)
            }
        }
    }
}

/// Whether the resource names these bytes, or the manifest that they are a layer of.
fn pin(desired: &Desired, component: Digest, image: Option<&source::Image>) -> Pin {
    let by_image = match (&desired.source, image) {
        (Source::Oci(oci), Some(image)) => oci.image.digest() == Some(image.manifest),
        _ => false,
    };
    if by_image || desired.pin == Some(component) { Pin::Pinned } else { Pin::Loose }
}

async fn judge(
    shared: &Shared,
    subject: &Subject,
    asker: Option<&Asker>,
    known: Option<&Approval>,
) -> Result<Approval, TrustError> {
    let signatures = asker.map(|asker| Signatures::new(&shared.api, &shared.oci, asker));
    let repository = signatures.as_ref().map(|signatures| signatures as &dyn Repository);
    shared.trust.judge(subject, repository, known).await
}
