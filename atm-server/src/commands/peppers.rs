//! Giving a bank a new pepper, and forgetting old ones.

use bank_core::PinProfile;
use bank_core::bank_file::{self, Rotation};

use super::{Ended, Error, say};
use crate::args::RotatePepperArgs;
use crate::config::BankPaths;

pub(super) fn rotate_pepper(args: RotatePepperArgs) -> Result<Ended, Error> {
    let paths = BankPaths::from(args.bank);
    let rotation = if args.forget_unused {
        Rotation::ForgetUnused
    } else {
        Rotation::AddKey
    };
    let profile = args.pin_profile.map(PinProfile::from);
    let rotated = bank_file::rotate_pepper(&paths.bank, &paths.pepper, rotation, profile)?;
    let (newest, file) = (rotated.newest, paths.pepper.display());
    if rotation == Rotation::AddKey {
        let origin = if rotated.finished {
            "left by a rotation that was cut short"
        } else {
            "new"
        };
        say(format_args!(
            "PINs are hashed with pepper {newest} from now on, which is {origin}: back up {file}"
        ));
    } else if rotated.forgotten.is_empty() {
        say(format_args!(
            "no pepper was forgotten: pepper {newest} is the newest, and cards depend on every other"
        ));
    }
    if let Some(profile) = profile {
        let warning = match profile {
            PinProfile::Standard => "",
            PinProfile::Fast => {
                ", which is for test banks only: whoever has bank and pepper finds every PIN at once"
            }
        };
        say(format_args!(
            "what a PIN's hash costs from now on: {}{warning}",
            profile.name()
        ));
    }
    for id in rotated.forgotten {
        say(format_args!("pepper {id} was forgotten"));
    }
    for (id, cards) in rotated.older {
        say(format_args!("cards that still depend on pepper {id}: {cards}"));
    }
    Ok(Ended::Done)
}
